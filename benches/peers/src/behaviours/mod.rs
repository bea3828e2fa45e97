//! The same behaviour asked of every peer that has the feature. What is said of a peer is what its program returned.

mod breaker;
mod limits;
mod others;

/// What a program saw, and whether that is what a user may expect.
pub struct Seen {
    pub text: String,
    pub right: bool,
}

impl Seen {
    fn new(right: bool, text: impl Into<String>) -> Self {
        Self { text: text.into(), right }
    }
}

type Program = fn() -> Seen;

pub struct Behaviour {
    /// What is asked, and what is right.
    pub question: &'static str,
    pub programs: Vec<(&'static str, Program)>,
}

fn all() -> Vec<Behaviour> {
    [breaker::all(), limits::all(), others::all()].into_iter().flatten().collect()
}

pub fn print() {
    println!("\n### Behaviours\n\n| asked | of | seen | right |\n|---|---|---|---|");
    for Behaviour { question, programs } in all() {
        for (peer, program) in programs {
            let Seen { text, right } = program();
            println!("| {question} | {peer} | {text} | {} |", if right { "yes" } else { "**no**" });
        }
    }
}

/// Runs a future on a runtime whose clock stands still but for timers.
fn paused<F: Future>(future: F) -> F::Output {
    runtime().start_paused(true).build().expect("a runtime").block_on(future)
}

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
    fn ours_is_always_right() {
        for behaviour in super::all() {
            for (peer, program) in behaviour.programs {
                let seen = program();
                assert!(seen.right || !peer.starts_with("rampart"), "{}: {}", behaviour.question, seen.text);
            }
        }
    }
}
