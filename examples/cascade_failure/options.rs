//! The command line options.

use std::{fmt, path::PathBuf, time::Duration};

use clap::Parser;

/// A cascading failure on real sockets, bare and protected by tower-rampart.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// Users per second; three of eight check out.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(50..=2000))]
    pub rate: u32,
    /// How long payments hangs, in seconds.
    #[arg(long, default_value_t = 8.0, value_parser = seconds)]
    pub fault: f64,
    /// The seed of the arrivals.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Shorter phases: about 17 seconds in total.
    #[arg(long)]
    pub quick: bool,
    /// The file to write the report to [default: a file in the temporary directory].
    #[arg(long)]
    pub html: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (2.0..=20.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number from 2 to 20".to_owned()),
    }
}

/// The phases of a run, as times from its start.
#[derive(Clone, Copy, Debug)]
pub struct Phases {
    pub fault: Duration,
    pub recovered: Duration,
    pub end: Duration,
}

/// How long a user waits.
pub const PATIENCE: Duration = Duration::from_secs(1);

impl Options {
    pub fn phases(&self) -> Phases {
        let (healthy, fault, after) = if self.quick { (2.0, self.fault.min(3.0), 3.0) } else { (4.0, self.fault, 5.0) };
        let at = |seconds: f64| Duration::from_secs_f64(seconds);
        Phases { fault: at(healthy), recovered: at(healthy + fault), end: at(healthy + fault + after) }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Phases { fault, recovered, end } = self.phases();
        write!(
            f,
            "{} users a second, seed {}; payments hangs from {:.1} s to {:.1} s of {:.1} s; two runs",
            self.rate,
            self.seed,
            fault.as_secs_f64(),
            recovered.as_secs_f64(),
            end.as_secs_f64()
        )
    }
}
