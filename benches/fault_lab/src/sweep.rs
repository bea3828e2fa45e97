//! Where the defaults come from: each is varied while all others stay, in all scenarios.

use std::time::Duration;

use tower_rampart::retry::{Backoff, Jitter};

use crate::{
    jobs,
    measure::{Figures, Recovery},
    scenarios::Scenario,
    stacks::{Rampart, Stack, Without},
    table::{Table, percent},
};

/// A default, the values it is tried with, and why it is what it is.
pub struct Sweep {
    /// The field, as its builder calls it.
    pub field: &'static str,
    /// What the default is, as one of the values' labels.
    pub default: &'static str,
    /// What it was before there was a lab, if that was something else.
    pub before: Option<&'static str>,
    /// What the figures say.
    pub why: &'static str,
    /// The values.
    pub values: Vec<(String, Rampart)>,
}

/// What became of a sweep.
#[derive(Clone, Debug)]
pub struct Curve {
    /// By value.
    pub points: Vec<Point>,
}

/// A value of a default.
#[derive(Clone, Debug)]
pub struct Point {
    /// The value.
    pub label: String,
    /// With the stacks of clients and servers.
    pub both: Score,
    /// With the clients' alone: servers that let everything in.
    pub client_only: Score,
}

/// What a value does over all scenarios.
#[derive(Clone, Copy, Debug)]
pub struct Score {
    /// The mean.
    pub goodput: f64,
    /// The slowest.
    pub recovery: Recovery,
    /// The most.
    pub amplification: f64,
    /// The worst healthy route.
    pub healthy: f64,
}

impl Score {
    fn of(figures: &[&Figures]) -> Self {
        let slower = |a: Recovery, b: Recovery| match (a, b) {
            (Recovery::Never, _) | (_, Recovery::Never) => Recovery::Never,
            (Recovery::After(a), Recovery::After(b)) => Recovery::After(a.max(b)),
            (Recovery::NothingToRecoverFrom, other) | (other, Recovery::NothingToRecoverFrom) => other,
        };
        Self {
            goodput: figures.iter().map(|figures| figures.since).sum::<f64>() / figures.len() as f64,
            recovery: figures.iter().map(|figures| figures.recovery).reduce(slower).expect("there are scenarios"),
            amplification: figures.iter().map(|figures| figures.amplification).fold(0.0, f64::max),
            healthy: figures.iter().filter_map(|figures| figures.healthy).fold(1.0, f64::min),
        }
    }
}

/// Carries sweeps out.
pub fn run(sweeps: &[Sweep], scenarios: &[Scenario], seed: u64) -> Vec<Curve> {
    let values = || sweeps.iter().flat_map(|sweep| &sweep.values);
    let stacks: Vec<[Rampart; 2]> =
        values().map(|(_, stack)| [stack.clone(), stack.clone().lacking(Without::Server)]).collect();
    let pairs = stacks.iter().flatten().flat_map(|stack| scenarios.iter().map(move |at| (at, stack as &dyn Stack)));
    let figures = jobs::run(&pairs.collect::<Vec<_>>(), seed);
    let mut of_stack = figures.chunks(scenarios.len()).map(|row| Score::of(&row.iter().collect::<Vec<_>>()));
    let mut next = || of_stack.next().expect("each stack has been run");
    let curve = |sweep: &Sweep| {
        let point = |(label, _): &(String, Rampart)| Point { label: label.clone(), both: next(), client_only: next() };
        Curve { points: sweep.values.iter().map(point).collect() }
    };
    sweeps.iter().map(curve).collect()
}

/// A curve as a table.
pub fn table(sweep: &Sweep, curve: &Curve) -> Table {
    let mut table = Table::new([
        sweep.field,
        "mean goodput, %",
        "slowest recovery",
        "most calls per request",
        "healthy route, %",
        "client stack only: goodput, %",
        "recovery",
        "calls per request",
    ]);
    for point in &curve.points {
        let label = if point.label == sweep.default { format!("**{}**", point.label) } else { point.label.clone() };
        let (both, client) = (point.both, point.client_only);
        table.row(vec![
            label,
            percent(both.goodput),
            both.recovery.to_string(),
            format!("{:.2}", both.amplification),
            percent(both.healthy),
            percent(client.goodput),
            client.recovery.to_string(),
            format!("{:.2}", client.amplification),
        ]);
    }
    table
}

fn values<T: Copy + Send + Sync + 'static>(
    values: &[T],
    label: impl Fn(T) -> String,
    stack: impl Fn(T) -> Rampart,
) -> Vec<(String, Rampart)> {
    values.iter().map(|value| (label(*value), stack(*value).named(label(*value)))).collect()
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn in_time(millis: u64) -> String {
    if millis.is_multiple_of(1000) { format!("{} s", millis / 1000) } else { format!("{millis} ms") }
}

fn number<T: ToString>(value: T) -> String {
    value.to_string()
}

/// All defaults.
pub fn all() -> Vec<Sweep> {
    let mut all = breaker();
    all.extend(retry());
    all.extend(limits());
    all
}

fn breaker() -> Vec<Sweep> {
    let default = Rampart::new;
    vec![
        Sweep {
            field: "circuit breaker: failure_rate",
            default: "0.8",
            before: Some("0.5"),
            why: "At one half, a breaker refuses the half that would have been answered, in a brown-out and while something \
                  flaps, and takes down what is well behind the same client: the healthy route falls below 99%. A circuit \
                  that opens at less than everything has its use where servers let everything in; 0.8 is in the middle of \
                  the values with which nothing is lost.",
            values: values(&[0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], number, |share| {
                default().breaker(move |breaker| breaker.failure_rate(share))
            }),
        },
        Sweep {
            field: "circuit breaker: open_duration",
            default: "1 s",
            before: None,
            why: "Each second that a circuit is open after the cause has gone is a second of refusals, and along a chain \
                  they add up. Below one second little is won, and more is sent to what is down.",
            values: values(&[100, 250, 500, 1000, 2000, 5000, 10_000, 30_000], in_time, |open| {
                default().breaker(move |breaker| breaker.open_duration(ms(open)).open_growth(1.0, ms(open)))
            }),
        },
        Sweep {
            field: "circuit breaker: open_growth (doubling, up to)",
            default: "1 s",
            before: Some("5 s"),
            why: "Growth delays the return by as much as it grew, and the calls that it spares are few: an open circuit \
                  lets three through per second as it is.",
            values: values(&[1000, 2000, 5000, 10_000, 30_000], in_time, |most| {
                default().breaker(move |breaker| breaker.open_growth(2.0, ms(most)))
            }),
        },
        Sweep {
            field: "circuit breaker: time_window",
            default: "10 s",
            before: None,
            why: "It makes little difference. Shorter windows trip on a flap; longer ones find out late where servers let everything in.",
            values: values(
                &[1, 2, 5, 10, 20, 30, 60],
                |seconds| format!("{seconds} s"),
                |seconds| default().breaker(move |breaker| breaker.time_window(Duration::from_secs(seconds))),
            ),
        },
        Sweep {
            field: "circuit breaker: window",
            default: "10 s",
            before: None,
            why: "A count window of a hundred calls does as well where clients are as busy as here, and costs a healthy call less. But its calls may be old: of a client with a call every four seconds it remembers seven minutes. Time fits every client. Runs of failures take healthy routes down by bad luck.",
            values: {
                let mut kinds = vec![("10 s".to_owned(), default())];
                kinds.extend(values(
                    &[20, 50, 100, 200, 500],
                    |calls| format!("{calls} calls"),
                    |calls| default().breaker(move |breaker| breaker.no_time_window().count_window(calls)),
                ));
                kinds.extend(values(
                    &[5, 10, 20],
                    |run| format!("{run} in a row"),
                    |run| default().breaker(move |breaker| breaker.no_failure_rate().consecutive_failures(run)),
                ));
                kinds
            },
        },
        Sweep {
            field: "circuit breaker: min_calls",
            default: "20",
            before: None,
            why: "It makes little difference with both stacks. With the clients' alone five would do two points better, but where more than a tenth of a percent fails on ordinary days, four of five fail by chance.",
            values: values(&[1, 5, 10, 20, 50], number, |calls| {
                default().breaker(move |breaker| breaker.min_calls(calls))
            }),
        },
        Sweep {
            field: "circuit breaker: probes and probe_successes",
            default: "3",
            before: None,
            why: "The number makes no difference to speak of. Three in a row are harder to get by luck from something \
                  that is half broken than one.",
            values: values(&[1, 2, 3, 5, 10], number, |probes| {
                default().breaker(move |breaker| breaker.probes(probes).probe_successes(probes))
            }),
        },
        Sweep {
            field: "circuit breaker: gradual_recovery",
            default: "off",
            before: None,
            why: "A server with a stack of its own takes what it can from the first moment, and every ramp refuses what \
                  it could have taken.",
            values: values(
                &[0, 1000, 2000, 5000, 10_000],
                |over| if over == 0 { "off".to_owned() } else { in_time(over) },
                |over| {
                    default()
                        .breaker(move |breaker| if over == 0 { breaker } else { breaker.gradual_recovery(ms(over)) })
                },
            ),
        },
    ]
}

fn retry() -> Vec<Sweep> {
    let default = Rampart::new;
    vec![
        Sweep {
            field: "retry: max_attempts",
            default: "3",
            before: None,
            why: "With a budget the number hardly matters: the budget decides. Without a budget it is the load that an \
                  outage adds.",
            values: values(&[1, 2, 3, 4, 5, 8], number, |attempts| {
                default().retry(move |retry| retry.max_attempts(attempts))
            }),
        },
        Sweep {
            field: "retry: backoff base",
            default: "50 ms",
            before: None,
            why: "Any delay of this order does. Much longer ones cost users their patience.",
            values: values(&[5, 25, 50, 100, 250, 500, 1000], in_time, |base| {
                default().retry(move |retry| retry.backoff(Backoff::exponential(ms(base), Duration::from_secs(20))))
            }),
        },
        Sweep {
            field: "retry: jitter",
            default: "full",
            before: None,
            why: "Arrivals are random here, and a budget bounds what comes back at once: no jitter is as good as full. \
                  Full is the default for those whose calls are not random, such as timers.",
            values: {
                let with = |jitter| default().retry(move |retry| retry.backoff(Backoff::default().jitter(jitter)));
                [
                    ("none", Jitter::None),
                    ("full", Jitter::Full),
                    ("equal", Jitter::Equal),
                    ("decorrelated", Jitter::Decorrelated),
                ]
                .map(|(name, jitter)| (name.to_owned(), with(jitter)))
                .to_vec()
            },
        },
        Sweep {
            field: "retry budget: ratio",
            default: "0.1",
            before: None,
            why: "What a lasting brown-out adds: with 0.2 the calls per request come close to what a busy server has to \
                  spare.",
            values: values(&[0.0, 0.02, 0.05, 0.1, 0.2, 0.5], number, |ratio| {
                default().budget(move |budget| budget.ratio(ratio))
            }),
        },
        Sweep {
            field: "retry budget: capacity",
            default: "2",
            before: Some("20"),
            why: "Each of a thousand clients has a bucket of its own. With three tokens each the fleet's brown-out never \
                  ends when the servers let everything in; with two it ends at once. Two is also what one call with three \
                  attempts may need.",
            values: values(&[1, 2, 3, 5, 10, 20, 50], number, |tokens| {
                default().budget(move |budget| budget.capacity(tokens))
            }),
        },
        Sweep {
            field: "retry budget: min_per_second",
            default: "0",
            before: Some("1"),
            why: "What time pays to each client it pays a thousand times to a fleet. A client with a call every four \
                  seconds and ordinary noise earns its retries by successes.",
            values: values(&[0, 1, 2, 5, 10], number, |tokens| {
                default().budget(move |budget| budget.min_per_second(tokens))
            }),
        },
    ]
}

fn limits() -> Vec<Sweep> {
    let default = Rampart::new;
    vec![
        Sweep {
            field: "client stack: attempt_timeout",
            default: "2 s",
            before: None,
            why: "It must be longer than the answers that a loaded server still gives, or it throws them away: below a \
                  second and a half, half the capacity is not enough for anyone. Tune it to your service; too long does \
                  less harm than too short.",
            values: values(&[250, 500, 1000, 1500, 2000, 3000], in_time, |limit| default().attempt_timeout(ms(limit))),
        },
        Sweep {
            field: "client stack: total_timeout",
            default: "5 s",
            before: None,
            why: "Users leave after three seconds here, so that it makes no difference above that. It is for callers who \
                  do not leave by themselves.",
            values: values(&[2500, 3000, 5000, 10_000, 30_000], in_time, |limit| default().total_timeout(ms(limit))),
        },
        Sweep {
            field: "client stack: bulkhead, max_concurrent",
            default: "64",
            before: None,
            why: "Enough for the traffic of one client of the chain (some 20 at once); small enough that a dependency that \
                  hangs leaves the healthy route its workers.",
            values: values(&[8, 16, 32, 64, 128, 256], number, |calls| {
                default().bulkhead(move |bulkhead| bulkhead.max_concurrent(calls))
            }),
        },
        Sweep {
            field: "server stack: bulkhead, max_concurrent",
            default: "256",
            before: None,
            why: "What lies in front of the workers is a queue, and must be worked off in the time that callers wait: \
                  above 256 (1.2 s at half the capacity) it no longer is. Fewer hurt services whose handlers wait for \
                  others. If you know how many workers you have, say two or three times that.",
            values: values(&[32, 64, 128, 256, 512, 1024], number, |calls| {
                default().server_bulkhead(move |bulkhead| bulkhead.max_concurrent(calls))
            }),
        },
        Sweep {
            field: "server stack: bulkhead, max_wait",
            default: "100 ms",
            before: None,
            why: "From none to half a second it makes little difference here. A whole second turns refusals into late answers.",
            values: values(&[0, 50, 100, 250, 500, 1000], in_time, |wait| {
                default().server_bulkhead(move |bulkhead| bulkhead.max_wait(ms(wait)))
            }),
        },
        Sweep {
            field: "server stack: total_timeout",
            default: "10 s",
            before: None,
            why: "It frees places that hang. What is shorter than the work of a slow day throws away what is half done.",
            values: values(&[1000, 2000, 5000, 10_000, 30_000], in_time, |limit| default().server_timeout(ms(limit))),
        },
    ]
}
