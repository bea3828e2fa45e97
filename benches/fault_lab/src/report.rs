//! The lab's reports: an HTML page, and `docs/evidence.md` with its charts.

use std::{fmt::Write as _, fs, io, path::Path};

use crate::{
    charts,
    measure::Figures,
    scenarios::Scenario,
    sim::Stack,
    sweep::{self, Curve, Sweep},
    table::{self, Table, percent},
};

/// The results of the lab.
pub struct Findings {
    /// The incidents.
    pub scenarios: Vec<Scenario>,
    /// The stacks.
    pub stacks: Vec<Box<dyn Stack>>,
    /// The figures, by scenario, then by stack.
    pub grid: Vec<Vec<Figures>>,
    /// The figures of the default stacks on the day without an incident.
    pub calm: Option<Figures>,
    /// The sweeps of the defaults, with their results.
    pub sweeps: Vec<(Sweep, Curve)>,
}

impl Findings {
    /// Returns the main figures of all scenarios, with their titles.
    pub fn overviews(&self) -> [(&'static str, Table); 3] {
        let of = |figure| table::overview(&self.scenarios, &self.stacks, &self.grid, figure);
        [
            (
                "Goodput: percentage of requests answered in time, from the start of the trigger",
                of(|f| percent(f.overall)),
            ),
            ("Recovery: seconds from the end of the trigger", of(|f| f.recovery.to_string())),
            ("Amplification: calls that reach a service, per request", of(|f| format!("{:.2}", f.amplification))),
        ]
    }

    /// Returns the result of the day without an incident, in a sentence.
    pub fn calm_day(&self) -> Option<String> {
        let calm = self.calm.as_ref()?;
        let requests: u64 = calm.calls.iter().map(|calls| u64::from(*calls)).sum();
        Some(format!(
            "On a day without an incident, with 0.1% background failures and heavy-tailed work, the clients made {requests} calls. \
             {} requests were rejected, and {}% were answered in time.",
            calm.false_rejections,
            percent(calm.overall)
        ))
    }

    fn chart(&self, index: usize) -> String {
        let named = |name: &&'static str| {
            let stack = self.stacks.iter().position(|stack| stack.name() == *name);
            stack.map(|stack| (*name, &self.grid[index][stack]))
        };
        charts::goodput(&self.scenarios[index], &charts::SHOWN.iter().filter_map(named).collect::<Vec<_>>())
    }

    /// Returns the HTML page, with all results.
    pub fn page(&self) -> String {
        let mut page = String::from(HEAD);
        for (title, table) in self.overviews() {
            let _ = write!(page, "<h2>{title}</h2>{}", table.html());
        }
        if let Some(calm) = self.calm_day() {
            let _ = write!(page, "<p>{calm}</p>");
        }
        for (index, scenario) in self.scenarios.iter().enumerate() {
            let _ = write!(page, "<h2>{}</h2><p>{}. {}.</p>", scenario.name, scenario.summary, scenario.source);
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

    /// Writes `evidence.md` and its charts to a folder.
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
                capital(scenario.summary),
                scenario.source
            );
            let figures = table::scenario(&self.stacks, &self.grid[index]).markdown();
            let _ = write!(page, "\n![{}](evidence/{file})\n\n{figures}", scenario.name);
        }
        page.push_str(DEFAULTS);
        for (sweep, curve) in &self.sweeps {
            let file = file_name(sweep.field);
            fs::write(folder.join(&file), charts::sweep(sweep.field, curve))?;
            let previous =
                sweep.previous.map(|previous| format!(" Before the lab existed, the default was {previous}."));
            let _ = write!(page, "\n### {}\n\n", capital(sweep.field));
            let _ = writeln!(page, "**{}.**{} {}", sweep.default, previous.unwrap_or_default(), sweep.why);
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
<p>Resilience stacks in simulated incidents. The shaded time is the trigger of the incident.</p>
"#;

const INTRODUCTION: &str = "\
# Evidence

The fault lab generates this page and its charts:

    cargo run --release -p fault_lab -- --docs docs

The lab runs the real layers on virtual time against simulated services, networks and users: open-loop arrivals, servers with
finite workers and finite queues whose work continues after the caller has left, fleets of clients with a stack each, and users
who leave and retry manually. The same seed gives the same figures to the last digit on any machine. Each scenario is defined
in its own file in `benches/fault_lab/src/scenarios/`, the stacks in `src/stacks/`, and the figures in `src/measure.rs`. A
quick part of the lab runs as a test (`benches/fault_lab/tests/promises.rs`).

Every incident has a trigger: the fault or the load that starts it. Unless a scenario says otherwise, there is one service with
20 workers and 50 ms of work per request (exponential), which is a capacity of 400 requests a second, a queue of 5 s, and 280
requests a second from 50 clients. Users expect a response within two seconds and leave after three; half of those without a
timely response retry once, manually. `rampart` is the default client and server stacks, unchanged except for the lab's clock
and seed. The stacks listed after it leave out one part or one side, or add a limit per client.

## All scenarios
";

const REMARKS: &str = "
### Observations

- The server's bounded queue is the part that ends a cascade. Without it, every stack that retries without a budget stays down
  after a brown-out, and every stack without a breaker stays down after a pause, thirty seconds of slowness, or ten seconds of
  overload, long after the trigger has ended: the metastable state. The client stack alone does recover, in the time that the
  server's queue takes to drain; without its breaker it does not.
- Where the server protects itself, the clients' breaker adds no goodput. Its value is in the other columns: only a third of
  the calls reach a dead dependency, and no caller waits for a response that will not come.
- Retries gain a few points in a brown-out. Without a budget, and in front of a server that admits every request, they bring
  the system down.
- A client's retry budget must be small, because a fleet may have a thousand clients.
- Nothing in the default stacks tells an abuser from the other clients. That takes a limit per client, and only you know the
  rate.

### Where another stack is better by more than two points, and why

- **Flapping**: three attempts with backoff reach into the next five healthy seconds, at twice the load. The default budget
  does not pay for them; a dependency that flaps because it is overloaded would never recover.
- **Four hops**: one call in ten still succeeds at the end of the chain, and each of the three breakers trips at a failure rate
  of 80%. If you need that tenth, set `failure_rate(1.0)`; it costs three times as many calls to the failing service.
- **Abusive client**: tower's clients send up to three attempts, and so get a larger share of the capacity that the abuser
  leaves.
";

const DEFAULTS: &str = "
## The defaults

Each default is varied in all scenarios while all others stay fixed. The tables show the mean goodput, the slowest recovery, the
most calls per request and the worst healthy route: first with the client and server stacks, then with the client stack alone,
in front of servers that admit every request. The abusive client has no stack, so nothing limits it there, and most of those
recoveries are `never` because of it. The default is in bold.
";
