use std::sync::Arc;

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::{Duration, sleep, sleep_until, timeout};
use tower::ServiceExt;

use super::{Client, Fault, Plan, Request, Route, Users, World};

/// Sends the requests of a plan until the end of the run.
pub(super) async fn run(world: &Arc<World>, plan: &Plan, clients: Vec<Vec<Client>>) {
    let clients: Arc<[Vec<Client>]> = clients.into();
    let users = Arc::new(plan.users.clone());
    for (route, stream) in plan.routes.iter().enumerate() {
        let arrivals = Arrivals {
            route: route as u32,
            stream: stream.clone(),
            world: world.clone(),
            users: users.clone(),
            clients: clients.clone(),
        };
        tokio::spawn(arrivals.run(world.rng(3_000_000_000 + route as u64)));
    }
    sleep_until(world.instant(plan.seconds * 1000)).await;
}

/// The arrival process of a route.
struct Arrivals {
    route: u32,
    stream: Route,
    world: Arc<World>,
    users: Arc<Users>,
    clients: Arc<[Vec<Client>]>,
}

impl Arrivals {
    /// An open loop: users arrive independently of earlier users' responses. A Poisson process at
    /// the peak rate, thinned to the current rate.
    async fn run(self, mut rng: SmallRng) {
        let peak = self.stream.shape.peak();
        let mut second = 0.0;
        loop {
            second -= libm::log(1.0 - rng.random::<f64>()) / (self.stream.rate * peak);
            sleep_until(self.world.instant((second * 1000.0) as u64)).await;
            if rng.random::<f64>() * peak >= self.stream.shape.factor(second) {
                continue;
            }
            let client = self.stream.abuser.unwrap_or_else(|| rng.random_range(0..self.users.clients));
            let service = self.clients[client as usize][self.route as usize].clone();
            let request = Request { client, route: self.route };
            let own = SmallRng::seed_from_u64(rng.random());
            tokio::spawn(user(self.world.clone(), self.users.clone(), service, request, own));
        }
    }
}

/// One user: sends a request, waits, and perhaps retries.
async fn user(world: Arc<World>, users: Arc<Users>, service: Client, request: Request, mut rng: SmallRng) {
    for attempt in 0..=users.max_retries {
        let sent = world.now();
        world.record().requested(sent, request);
        let patience = Duration::from_millis(users.patience);
        let result = timeout(patience, service.clone().oneshot(request)).await;
        let took = world.now() - sent;
        let good = matches!(result, Ok(Ok(_))) && took <= users.in_time;
        let rejected = matches!(&result, Ok(Err(fault)) if Fault::is_rejection(fault));
        world.record().answered(sent, request, took, good, rejected);
        if good || attempt == users.max_retries || rng.random::<f64>() >= users.retry_probability {
            return;
        }
        sleep(Duration::from_millis(users.think_time.millis(1.0, &mut rng))).await;
    }
}
