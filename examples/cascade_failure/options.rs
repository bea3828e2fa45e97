//! What can be chosen.

use std::{fmt, path::PathBuf, time::Duration};

use clap::Parser;

/// A cascade failure on real sockets, bare and protected by tower-rampart.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// Users that arrive per second; three of eight check out.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(50..=2000))]
    pub rate: u32,
    /// Seconds for which payments hangs.
    #[arg(long, default_value_t = 8.0, value_parser = seconds)]
    pub fault: f64,
    /// Seed of the arrivals.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Shorter phases: about 17 seconds in all.
    #[arg(long)]
    pub quick: bool,
    /// Where to write the report; a file in the system's directory for temporary files by default.
    #[arg(long)]
    pub html: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (2.0..=20.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number from 2 to 20".to_owned()),
    }
}

/// The phases of a run, as times from its beginning.
#[derive(Clone, Copy, Debug)]
pub struct Phases {
    pub fault: Duration,
    pub well: Duration,
    pub end: Duration,
}

/// How long a user waits.
pub const PATIENCE: Duration = Duration::from_secs(1);

impl Options {
    pub fn phases(&self) -> Phases {
        let (healthy, fault, after) = if self.quick { (2.0, self.fault.min(3.0), 3.0) } else { (4.0, self.fault, 5.0) };
        let at = |seconds: f64| Duration::from_secs_f64(seconds);
        Phases { fault: at(healthy), well: at(healthy + fault), end: at(healthy + fault + after) }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Phases { fault, well, end } = self.phases();
        write!(
            f,
            "{} users a second, seed {}; payments hangs from {:.1} s to {:.1} s of {:.1} s; two runs",
            self.rate,
            self.seed,
            fault.as_secs_f64(),
            well.as_secs_f64(),
            end.as_secs_f64()
        )
    }
}
