//! The running system: the services with their faults, the coordinator, and the customers.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use axum::Router;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tower_rampart::BoxError;

use crate::{
    audit::{self, Audit},
    broker,
    coordinator::{Coordinator, Services},
    faults::{Faults, Rates},
    journal::Journal,
    ledger::{self, Ledger},
    remote::{Remote, Tally},
    serve::Server,
};

/// The settings of a run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub orders: u32,
    pub at_once: u32,
    pub seed: u64,
    pub rates: Rates,
    /// The attempt timeout: longer than a normal response takes, even on a busy machine.
    pub attempt: Duration,
    /// Payment ignores idempotency keys.
    pub payment_forgets: bool,
    /// The services and the broker are down for a while, one after the other.
    pub outages: bool,
    /// The coordinator crashes halfway, and restarts from its journal.
    pub crash: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            orders: 400,
            at_once: 32,
            seed: 1,
            rates: Rates { rejected: 0.05, lost: 0.03, late: 0.02 },
            attempt: Duration::from_millis(250),
            payment_forgets: false,
            outages: true,
            crash: true,
        }
    }
}

/// The outcome of a run.
pub struct Outcome {
    pub audit: Audit,
    pub tally: Arc<Tally>,
    pub crashes: u32,
}

struct System {
    settings: Settings,
    journal: Arc<Journal>,
    services: Services,
    faults: Vec<Arc<Faults>>,
    address: SocketAddr,
    tally: Arc<Tally>,
    /// The services' servers, which run until they are dropped.
    _servers: Vec<Server>,
}

/// Places orders under faults, and audits the books when the system is idle.
pub async fn run(settings: Settings) -> Result<Outcome, BoxError> {
    let (system, listener) = System::start(settings).await?;
    let mut coordinator = Coordinator::start(listener, system.journal.clone(), system.services.clone());
    let mut crashes = 0;
    let mut customers = system.customers()?;
    if settings.outages {
        tokio::spawn(outages(system.faults.clone(), system.journal.clone(), settings.orders));
    }
    if settings.crash {
        while system.ended() < settings.orders as usize / 2 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        coordinator.crash().await;
        crashes += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let listener = TcpListener::bind(system.address).await?;
        coordinator = Coordinator::start(listener, system.journal.clone(), system.services.clone());
    }
    while let Some(customer) = customers.join_next().await {
        customer??;
    }
    // Wait until the outbox is published and late requests have arrived.
    while {
        let (written, published) = system.journal.outbox();
        published < written
    } {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let remote = Remote::new("orders", system.address, Duration::from_secs(5), &system.tally)?;
    let audit = audit::audit(&remote, &system.services).await?;
    drop(coordinator);
    Ok(Outcome { audit, tally: system.tally, crashes })
}

impl System {
    async fn start(settings: Settings) -> Result<(Self, TcpListener), BoxError> {
        let accounts = |names: &[(&str, i64)]| names.iter().map(|(name, amount)| (name.to_string(), *amount)).collect();
        let money: HashMap<_, _> = (0..CUSTOMERS).map(|customer| (format!("customer-{customer}"), 10_000)).collect();
        // The rare item is scarce, and there is no delivery to the moon.
        let stock = accounts(&[("book", 1_000_000), ("lamp", 1_000_000), ("rare", i64::from(settings.orders) / 20)]);
        let regions = accounts(&[("north", 1_000_000), ("south", 1_000_000), ("moon", 0)]);
        let (mut faults, mut addresses, mut servers) = (Vec::new(), Vec::new(), Vec::new());
        let ledgers = [(stock, false), (money, settings.payment_forgets), (regions, false)];
        let mut routers: Vec<Box<dyn FnOnce(Arc<Faults>) -> Router>> = Vec::new();
        for (accounts, forgets) in ledgers {
            routers.push(Box::new(move |faults| ledger::router(Ledger::new(accounts, forgets), faults)));
        }
        routers.push(Box::new(|faults| broker::router(Arc::default(), faults)));
        for (number, router) in routers.into_iter().enumerate() {
            let injected = Faults::new(settings.rates, settings.seed.wrapping_add(number as u64));
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            addresses.push(listener.local_addr()?);
            servers.push(Server::start(listener, router(injected.clone())));
            faults.push(injected);
        }
        let tally = Arc::new(Tally::default());
        let remote = |name, at: usize| Remote::new(name, addresses[at], settings.attempt, &tally);
        let services = Services {
            inventory: remote("inventory", 0)?,
            payment: remote("payment", 1)?,
            shipping: remote("shipping", 2)?,
            broker: remote("broker", 3)?,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let journal = Arc::default();
        Ok((Self { settings, journal, services, faults, address, tally, _servers: servers }, listener))
    }

    fn ended(&self) -> usize {
        self.journal.all().iter().filter(|progress| progress.end.is_some()).count()
    }

    /// Starts the customers. Each places its orders one after the other and retries until it has a
    /// response, also across a crash of the coordinator.
    fn customers(&self) -> Result<JoinSet<Result<(), BoxError>>, BoxError> {
        let mut customers = JoinSet::new();
        let coordinator = Remote::new("coordinator", self.address, Duration::from_secs(60), &self.tally)?;
        for turn in 0..self.settings.at_once {
            let (coordinator, settings) = (coordinator.clone(), self.settings);
            customers.spawn(async move {
                for number in (turn..settings.orders).step_by(settings.at_once as usize) {
                    let id = format!("order-{number}");
                    let order = order(settings.seed, number);
                    let (status, end) = coordinator.post_until_done("/orders", &id, &order).await?;
                    if !status.is_success() || !["confirmed", "cancelled"].contains(&&*end) {
                        return Err(format!("order {id}: {status} {end}").into());
                    }
                }
                Ok(())
            });
        }
        Ok(customers)
    }
}

const CUSTOMERS: u32 = 20;

/// Generates a random order.
fn order(seed: u64, number: u32) -> Value {
    let mut rng = SmallRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(u64::from(number)));
    json!({
        "customer": format!("customer-{}", rng.random_range(0..CUSTOMERS)),
        "item": (["book", "lamp", "rare"])[usize::from(rng.random::<f64>() > 0.45) + usize::from(rng.random::<f64>() > 0.8)],
        "quantity": rng.random_range(1..=3),
        "price": rng.random_range(100..=1500),
        "region": if rng.random::<f64>() < 0.1 { "moon" } else { ["north", "south"][rng.random_range(0..2)] },
    })
}

/// Takes each service down for half a second, one after the other, and then the broker for longer.
async fn outages(faults: Vec<Arc<Faults>>, journal: Arc<Journal>, orders: u32) {
    for (number, faults) in faults.iter().enumerate() {
        let placed = orders as usize * (2 * number + 1) / 10;
        while journal.all().len() < placed {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        faults.set_down(true);
        tokio::time::sleep(Duration::from_millis(if number == 3 { 1500 } else { 500 })).await;
        faults.set_down(false);
    }
}

impl Outcome {
    /// Formats the figures, one per line.
    pub fn table(&self) -> String {
        let Audit { orders, confirmed, cancelled, suppressed, repeated_events, .. } = &self.audit;
        let tally = |count: &std::sync::atomic::AtomicU64| count.load(Relaxed).to_string();
        let rows = [
            ("orders", orders.to_string()),
            ("confirmed", confirmed.to_string()),
            ("cancelled and compensated", cancelled.to_string()),
            ("retries of steps", tally(&self.tally.retries)),
            ("retries of requests that must succeed", tally(&self.tally.undo_retries)),
            ("duplicate requests suppressed", suppressed.to_string()),
            ("circuits opened", tally(&self.tally.opened)),
            ("calls rejected by an open circuit", tally(&self.tally.rejected)),
            ("crashes of the coordinator", self.crashes.to_string()),
            ("events published twice", repeated_events.to_string()),
        ];
        rows.map(|(label, count)| format!("{label:38}{count:>7}\n")).concat()
    }
}
