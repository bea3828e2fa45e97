//! The same behavioural checks for every crate that has the feature. Every statement about a crate
//! is the output of its check.

mod breaker;
mod limits;
mod others;

/// The observation of a check, and whether it is the behaviour that a user may expect.
pub struct Observed {
    pub text: String,
    pub as_expected: bool,
}

impl Observed {
    fn new(as_expected: bool, text: impl Into<String>) -> Self {
        Self { text: text.into(), as_expected }
    }
}

type Program = fn() -> Observed;

pub struct Behaviour {
    /// The question that the checks answer.
    pub question: &'static str,
    pub programs: Vec<(&'static str, Program)>,
}

fn all() -> Vec<Behaviour> {
    [breaker::all(), limits::all(), others::all()].into_iter().flatten().collect()
}

pub fn print() {
    println!("\n### Behaviours\n\n| question | crate | observed | as expected |\n|---|---|---|---|");
    for Behaviour { question, programs } in all() {
        for (peer, program) in programs {
            let Observed { text, as_expected } = program();
            println!("| {question} | {peer} | {text} | {} |", if as_expected { "yes" } else { "**no**" });
        }
    }
}

/// Runs a future on a runtime whose paused clock only advances for timers.
fn paused<F: Future>(future: F) -> F::Output {
    runtime().start_paused(true).build().expect("a runtime").block_on(future)
}

/// Runs a future on a runtime in real time.
fn running<F: Future>(future: F) -> F::Output {
    runtime().build().expect("a runtime").block_on(future)
}

fn runtime() -> tokio::runtime::Builder {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time();
    builder
}

/// Polls a future once.
fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
    future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_crate_behaves_as_expected_in_every_check() {
        for behaviour in super::all() {
            for (peer, program) in behaviour.programs {
                let observed = program();
                let ours = peer.starts_with("rampart");
                assert!(observed.as_expected || !ours, "{}: {}", behaviour.question, observed.text);
            }
        }
    }
}
