//! How the defaults were chosen: each is varied in all scenarios while all others stay fixed.

use std::time::Duration;

use tower_rampart::retry::{Backoff, Jitter};

use crate::{
    jobs,
    measure::{Figures, Recovery},
    scenarios::Scenario,
    sim::Stack,
    stacks::{Part, Rampart},
    table::{Table, percent},
};

/// A default, the values it is tried with, and the reason for its value.
pub struct Sweep {
    /// The setting, by its builder's name.
    pub field: &'static str,
    /// The default, as one of the values' labels.
    pub default: &'static str,
    /// The default before the lab existed, if it was different.
    pub previous: Option<&'static str>,
    /// The reason, as the figures show it.
    pub why: &'static str,
    /// The values, with their labels.
    pub values: Vec<(String, Rampart)>,
}

/// The result of a sweep.
#[derive(Clone, Debug)]
pub struct Curve {
    /// The points, by value.
    pub points: Vec<Point>,
}

/// The result of one value.
#[derive(Clone, Debug)]
pub struct Point {
    /// The value's label.
    pub label: String,
    /// The score with the client and server stacks.
    pub both: Score,
    /// The score with the client stack alone, in front of servers that admit every request.
    pub client_only: Score,
}

/// A value's figures over all scenarios.
#[derive(Clone, Copy, Debug)]
pub struct Score {
    /// The mean goodput.
    pub goodput: f64,
    /// The slowest recovery.
    pub recovery: Recovery,
    /// The highest amplification.
    pub amplification: f64,
    /// The goodput of the worst healthy route.
    pub healthy: f64,
}

impl Score {
    fn of(figures: &[&Figures]) -> Self {
        let slower = |a: Recovery, b: Recovery| match (a, b) {
            (Recovery::Never, _) | (_, Recovery::Never) => Recovery::Never,
            (Recovery::After(a), Recovery::After(b)) => Recovery::After(a.max(b)),
            (Recovery::NotApplicable, other) | (other, Recovery::NotApplicable) => other,
        };
        Self {
            goodput: figures.iter().map(|figures| figures.overall).sum::<f64>() / figures.len() as f64,
            recovery: figures.iter().map(|figures| figures.recovery).reduce(slower).expect("there are scenarios"),
            amplification: figures.iter().map(|figures| figures.amplification).fold(0.0, f64::max),
            healthy: figures.iter().filter_map(|figures| figures.healthy).fold(1.0, f64::min),
        }
    }
}

/// Runs the sweeps.
pub fn run(sweeps: &[Sweep], scenarios: &[Scenario], seed: u64) -> Vec<Curve> {
    let values = || sweeps.iter().flat_map(|sweep| &sweep.values);
    let stacks: Vec<[Rampart; 2]> =
        values().map(|(_, stack)| [stack.clone(), stack.clone().also_without(Part::Server)]).collect();
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

/// Returns the table of a curve.
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

fn duration_label(millis: u64) -> String {
    if millis.is_multiple_of(1000) { format!("{} s", millis / 1000) } else { format!("{millis} ms") }
}

fn number<T: ToString>(value: T) -> String {
    value.to_string()
}

/// Returns the sweeps of all defaults.
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
            previous: Some("0.5"),
            why: "At 0.5, a breaker rejects the half of the calls that would have succeeded, in a brown-out and \
                  with a flapping dependency, and takes down healthy routes behind the same client: the healthy \
                  route falls below 99%. Tripping below a rate of 1.0 is useful where servers admit every request; \
                  0.8 is in the middle of the values that lose no goodput.",
            values: values(&[0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], number, |share| {
                default().breaker(move |breaker| breaker.failure_rate(share))
            }),
        },
        Sweep {
            field: "circuit breaker: open_duration",
            default: "1 s",
            previous: None,
            why: "Every second that a circuit stays open after the trigger has ended is a second of rejections, \
                  and these add up along a chain. Below one second there is little to gain, and a failing service \
                  receives more calls.",
            values: values(&[100, 250, 500, 1000, 2000, 5000, 10_000, 30_000], duration_label, |open| {
                default().breaker(move |breaker| breaker.open_duration(ms(open)).open_growth(1.0, ms(open)))
            }),
        },
        Sweep {
            field: "circuit breaker: open_growth (doubling, up to)",
            default: "1 s",
            previous: Some("5 s"),
            why: "Growth delays recovery by as much as the duration has grown, and saves few calls: an open \
                  circuit admits only three per second as it is.",
            values: values(&[1000, 2000, 5000, 10_000, 30_000], duration_label, |most| {
                default().breaker(move |breaker| breaker.open_growth(2.0, ms(most)))
            }),
        },
        Sweep {
            field: "circuit breaker: time_window",
            default: "10 s",
            previous: None,
            why: "The length makes little difference. Shorter windows trip on a flap; longer ones detect an outage \
                  late where servers admit every request.",
            values: values(
                &[1, 2, 5, 10, 20, 30, 60],
                |seconds| format!("{seconds} s"),
                |seconds| default().breaker(move |breaker| breaker.time_window(Duration::from_secs(seconds))),
            ),
        },
        Sweep {
            field: "circuit breaker: window",
            default: "10 s",
            previous: None,
            why: "A count window of a hundred calls does as well where clients are as busy as these, and makes a \
                  healthy call cheaper. But its calls may be old: for a client with one call every four seconds it \
                  spans seven minutes. A time window suits every client. Consecutive failures take healthy routes \
                  down by chance.",
            values: {
                let mut kinds = vec![("10 s".to_owned(), default())];
                kinds.extend(values(
                    &[20, 50, 100, 200, 500],
                    |calls| format!("{calls} calls"),
                    |calls| default().breaker(move |breaker| breaker.no_time_window().count_window(calls)),
                ));
                kinds.extend(values(
                    &[5, 10, 20],
                    |failures| format!("{failures} consecutive"),
                    |failures| {
                        default().breaker(move |breaker| breaker.no_failure_rate().consecutive_failures(failures))
                    },
                ));
                kinds
            },
        },
        Sweep {
            field: "circuit breaker: min_calls",
            default: "20",
            previous: None,
            why: "The number makes little difference with both stacks. With the client stack alone, 5 would gain \
                  two points, but where more than 0.1% of the calls fail on ordinary days, four failures in five \
                  calls happen by chance.",
            values: values(&[1, 5, 10, 20, 50], number, |calls| {
                default().breaker(move |breaker| breaker.min_calls(calls))
            }),
        },
        Sweep {
            field: "circuit breaker: probe_successes",
            default: "1",
            previous: None,
            why: "The number makes almost no difference here. Each success that is required makes it less likely that \
                  a service closes the circuit at a failure rate at which a closed circuit stays closed.",
            values: values(&[1, 2, 3, 5, 10], number, |successes| {
                default().breaker(move |breaker| breaker.probes(successes.max(3)).probe_successes(successes))
            }),
        },
        Sweep {
            field: "circuit breaker: gradual_recovery",
            default: "off",
            previous: None,
            why: "A server with its own stack admits what it can handle from the first moment, and every ramp \
                  rejects calls that it could have handled.",
            values: values(
                &[0, 1000, 2000, 5000, 10_000],
                |over| if over == 0 { "off".to_owned() } else { duration_label(over) },
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
            previous: None,
            why: "With a budget the number hardly matters, because the budget decides. Without one it determines \
                  the load that retries add to an outage.",
            values: values(&[1, 2, 3, 4, 5, 8], number, |attempts| {
                default().retry(move |retry| retry.max_attempts(attempts))
            }),
        },
        Sweep {
            field: "retry: backoff base",
            default: "50 ms",
            previous: None,
            why: "Any delay of this order works. Much longer delays exhaust users' patience.",
            values: values(&[5, 25, 50, 100, 250, 500, 1000], duration_label, |base| {
                default().retry(move |retry| retry.backoff(Backoff::exponential(ms(base), Duration::from_secs(20))))
            }),
        },
        Sweep {
            field: "retry: jitter",
            default: "full",
            previous: None,
            why: "Arrivals are random here, and the budget bounds simultaneous retries, so no jitter is as good as \
                  full jitter. Full is the default for callers whose calls are not random, such as timers.",
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
            previous: None,
            why: "The ratio is the load that a lasting brown-out adds: at 0.2 the calls per request approach the \
                  spare capacity of a busy server.",
            values: values(&[0.0, 0.02, 0.05, 0.1, 0.2, 0.5], number, |ratio| {
                default().budget(move |budget| budget.ratio(ratio))
            }),
        },
        Sweep {
            field: "retry budget: capacity",
            default: "2",
            previous: Some("20"),
            why: "Each of a thousand clients has its own bucket. With three tokens each, the fleet's brown-out \
                  never ends when servers admit every request; with two it ends immediately. Two is also the \
                  number that one call with three attempts may need.",
            values: values(&[1, 2, 3, 5, 10, 20, 50], number, |tokens| {
                default().budget(move |budget| budget.capacity(tokens))
            }),
        },
        Sweep {
            field: "retry budget: min_per_second",
            default: "0",
            previous: Some("1"),
            why: "Tokens that each client earns over time multiply by a thousand in a fleet. A client with one \
                  call every four seconds and ordinary failures earns its retries through successes.",
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
            previous: None,
            why: "It must exceed the latency of the responses that a loaded server still gives, or it discards \
                  them: below 1.5 s, half the capacity is not enough for any user. Tune it to your service; too \
                  long does less harm than too short.",
            values: values(&[250, 500, 1000, 1500, 2000, 3000], duration_label, |limit| {
                default().attempt_timeout(ms(limit))
            }),
        },
        Sweep {
            field: "client stack: total_timeout",
            default: "5 s",
            previous: None,
            why: "Users leave after three seconds here, so values above that make no difference. It is for callers \
                  that do not time out themselves.",
            values: values(&[2500, 3000, 5000, 10_000, 30_000], duration_label, |limit| {
                default().total_timeout(ms(limit))
            }),
        },
        Sweep {
            field: "client stack: bulkhead, max_concurrent",
            default: "64",
            previous: None,
            why: "It is large enough for the traffic of one client in the chain (about 20 concurrent calls), and \
                  small enough that a hanging dependency leaves the healthy route its workers.",
            values: values(&[8, 16, 32, 64, 128, 256], number, |calls| {
                default().bulkhead(move |bulkhead| bulkhead.max_concurrent(calls))
            }),
        },
        Sweep {
            field: "server stack: bulkhead, max_concurrent",
            default: "256",
            previous: None,
            why: "Requests in front of the workers form a queue, which must drain within the callers' patience: \
                  above 256 (1.2 s at half the capacity) it no longer does. Lower limits hurt services whose \
                  handlers wait for other services. If you know the number of workers, use two or three times \
                  that.",
            values: values(&[32, 64, 128, 256, 512, 1024], number, |calls| {
                default().server_bulkhead(move |bulkhead| bulkhead.max_concurrent(calls))
            }),
        },
        Sweep {
            field: "server stack: bulkhead, max_wait",
            default: "100 ms",
            previous: None,
            why: "From zero to half a second it makes little difference here. A full second turns rejections into \
                  late responses.",
            values: values(&[0, 50, 100, 250, 500, 1000], duration_label, |wait| {
                default().server_bulkhead(move |bulkhead| bulkhead.max_wait(ms(wait)))
            }),
        },
        Sweep {
            field: "server stack: total_timeout",
            default: "10 s",
            previous: None,
            why: "It frees slots held by hung requests. A timeout shorter than the work of a slow day discards \
                  half-finished work.",
            values: values(&[1000, 2000, 5000, 10_000, 30_000], duration_label, |limit| {
                default().server_timeout(ms(limit))
            }),
        },
    ]
}
