//! What the lab has to say: a page with everything in it, and `docs/evidence.md` with its charts.

use std::{fmt::Write as _, fs, io, path::Path};

use crate::{
    charts,
    measure::Figures,
    scenarios::Scenario,
    stacks::Stack,
    sweep::{self, Curve, Sweep},
    table::{self, Table, percent},
};

/// All that has been found out.
pub struct Findings {
    /// What befell the system.
    pub scenarios: Vec<Scenario>,
    /// What protected it.
    pub stacks: Vec<Box<dyn Stack>>,
    /// By scenario, then by stack.
    pub grid: Vec<Vec<Figures>>,
    /// The day without an incident, with the default stacks.
    pub calm: Option<Figures>,
    /// The defaults, and what they do.
    pub sweeps: Vec<(Sweep, Curve)>,
}

impl Findings {
    /// The figures of all scenarios at a glance.
    pub fn overviews(&self) -> [(&'static str, Table); 3] {
        let of = |figure| table::overview(&self.scenarios, &self.stacks, &self.grid, figure);
        [
            ("Goodput: requests answered in time, in percent, from the cause's beginning", of(|f| percent(f.since))),
            ("Seconds from the cause's end until the system is itself again", of(|f| f.recovery.to_string())),
            ("Calls that reach a service per request", of(|f| format!("{:.2}", f.amplification))),
        ]
    }

    /// What was found on the calm day, in a sentence.
    pub fn calm_day(&self) -> Option<String> {
        let calm = self.calm.as_ref()?;
        let requests: u64 = calm.calls.iter().map(|calls| u64::from(*calls)).sum();
        Some(format!(
            "On a day without an incident, with 0.1% errors and a heavy tail, {requests} calls were made, {} requests were \
             refused, and {}% were answered in time.",
            calm.false_refusals,
            percent(calm.since)
        ))
    }

    fn chart(&self, index: usize) -> String {
        let named = |name: &&'static str| {
            let stack = self.stacks.iter().position(|stack| stack.name() == *name);
            stack.map(|stack| (*name, &self.grid[index][stack]))
        };
        charts::goodput(&self.scenarios[index], &charts::SHOWN.iter().filter_map(named).collect::<Vec<_>>())
    }

    /// One page with everything in it.
    pub fn page(&self) -> String {
        let mut page = String::from(HEAD);
        for (title, table) in self.overviews() {
            let _ = write!(page, "<h2>{title}</h2>{}", table.html());
        }
        if let Some(calm) = self.calm_day() {
            let _ = write!(page, "<p>{calm}</p>");
        }
        for (index, scenario) in self.scenarios.iter().enumerate() {
            let _ = write!(page, "<h2>{}</h2><p>{}. {}.</p>", scenario.name, scenario.what, scenario.source);
            let figures = table::scenario(&self.stacks, &self.grid[index]).html();
            let _ = write!(page, "<figure>{}</figure>{figures}", self.chart(index));
        }
        for (sweep, curve) in &self.sweeps {
            let _ = write!(page, "<h2>{}</h2><p>{}</p>", sweep.field, sweep.why);
            let figures = sweep::table(sweep, curve).html().replace("**", "");
            let _ = write!(page, "<figure>{}</figure>{figures}", charts::sweep(sweep.field, curve));
        }
        page.push_str("</main></html>\n");
        page
    }

    /// Writes `evidence.md` and its charts into a folder.
    pub fn write_docs(&self, docs: &Path) -> io::Result<()> {
        let folder = docs.join("evidence");
        fs::create_dir_all(&folder)?;
        let mut page = String::from(INTRODUCTION);
        if let Some(calm) = self.calm_day() {
            let _ = write!(page, "\n{calm}\n");
        }
        for (title, table) in self.overviews() {
            let _ = write!(page, "\n### {title}\n\n{}", table.markdown());
        }
        page.push_str(REMARKS);
        page.push_str("\n## The scenarios\n");
        for (index, scenario) in self.scenarios.iter().enumerate() {
            let file = file_name(scenario.name);
            fs::write(folder.join(&file), self.chart(index))?;
            let _ = write!(
                page,
                "\n### {}\n\n{}. Source: {}.\n",
                capital(scenario.name),
                capital(scenario.what),
                scenario.source
            );
            let figures = table::scenario(&self.stacks, &self.grid[index]).markdown();
            let _ = write!(page, "\n![{}](evidence/{file})\n\n{figures}", scenario.name);
        }
        page.push_str(DEFAULTS);
        for (sweep, curve) in &self.sweeps {
            let file = file_name(sweep.field);
            fs::write(folder.join(&file), charts::sweep(sweep.field, curve))?;
            let before = sweep.before.map(|before| format!(" Before there was a lab it was {before}."));
            let _ = write!(page, "\n### {}\n\n", capital(sweep.field));
            let _ = writeln!(page, "**{}.**{} {}", sweep.default, before.unwrap_or_default(), sweep.why);
            let _ = write!(page, "\n![{}](evidence/{file})\n\n{}", sweep.field, sweep::table(sweep, curve).markdown());
        }
        fs::write(docs.join("evidence.md"), page)
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn file_name(title: &str) -> String {
    let letters = title.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' });
    let words: Vec<_> =
        letters.collect::<String>().split('-').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    format!("{}.svg", words.join("-").to_lowercase())
}

const HEAD: &str = r#"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>The fault lab</title>
<style>
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1200px; margin: auto; padding: 1rem }
figure { margin: 0; background: #fff; border-radius: 6px; padding: .5rem; max-width: 780px }
svg { width: 100%; height: auto }
table { border-collapse: collapse; font-size: .8rem; display: block; overflow: auto; margin: .5rem 0 }
td, th { padding: .15rem .5rem; text-align: right; border-bottom: 1px solid #8884 }
td:first-child, th:first-child { text-align: left; white-space: nowrap }
</style>
<main><h1>The fault lab</h1>
<p>What resilience stacks are worth when systems fall. In the grey time the cause of trouble is there.</p>
"#;

const INTRODUCTION: &str = "\
# Evidence

This page is written by the fault lab, with its charts:

    cargo run --release -p fault_lab -- --docs docs

The lab runs real layers on virtual time against simulated services, networks and users: open-loop arrivals, servers with
finite workers and finite queues whose work goes on after the caller has left, fleets of clients with a stack each, users
who leave and ask again by hand. The same seed gives the same figures to the last digit, anywhere. What a scenario is made
of stands in its file, in `benches/fault_lab/src/scenarios/`; what a stack is, in `src/stacks/`; how a figure is made, in
`src/measure.rs`. A quick part of it is a test (`benches/fault_lab/tests/promises.rs`).

Unless a scenario says otherwise, there is one service with 20 workers and 50 ms of work per request (exponential), so with a
capacity of 400 requests a second, a queue of 5 s, and 280 requests a second by 50 clients. Users want an answer within two
seconds, leave after three, and half the time ask once more by hand. `rampart` are the default client and server stacks,
unchanged but for the lab's clock and seed; the rows below it leave a part out, or one side.

## All scenarios
";

const REMARKS: &str = "
### What to see in them

- What ends a cascade is the server's bounded queue. Without one, whatever repeats calls without a budget stays down after a
  brown-out, and whatever has no breaker stays down after a pause, thirty seconds of slowness, or ten of too many users, long
  after the cause has gone: the metastable state. The clients' stack alone gets out of it, in the time that the queue takes
  that it finds; without its breaker it does not.
- Where the server protects itself, the clients' breaker earns no goodput. What it is worth is in the other columns: a third of
  the calls reach a dead dependency, and nobody waits for what will not come.
- Retries are worth a few points in a brown-out. Without a budget, and in front of a server that lets everything in, they cost
  everything.
- A client's budget must be small, because there may be a thousand clients.
- Nothing in the default stacks tells an abuser from the others. That takes a limit per client, and only you know the rate.

### Where another stack does better by more than two points, and why

- **Flapping**: three attempts with backoff reach into the next five good seconds, at twice the load. The default budget does
  not pay for that; a dependency that flaps because it is overloaded would never get up.
- **Four hops**: one call in ten is still answered at the end of the chain, and each of three breakers gives up on it at four
  of five. Whoever wants that tenth sets `failure_rate(1.0)`; it costs three times the calls to something that fails.
- **Abusive client**: tower's clients ask up to three times, and so get a larger share of what the abuser leaves.
";

const DEFAULTS: &str = "
## The defaults

Each is varied while all others stay, in all scenarios: the mean of their goodput, the slowest recovery, the most calls per
request, the worst healthy route. First with the stacks of clients and servers, then with the clients' alone, in front of
servers that let everything in; the abusive client has none, so that nothing holds it there, and most of those recoveries are
`never` for its sake. The default is in bold.
";
