use std::sync::Arc;

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::{Duration, sleep, sleep_until, timeout};
use tower::ServiceExt;

use super::{Client, Fault, Plan, Request, Route, Users, World};

/// Sends all requests of a plan, and watches until its end.
pub(super) async fn live(world: &Arc<World>, plan: &Plan, clients: Vec<Vec<Client>>) {
    let clients: Arc<[Vec<Client>]> = clients.into();
    let users = Arc::new(plan.users.clone());
    for (route, stream) in plan.routes.iter().enumerate() {
        let crowd = Crowd {
            route: route as u32,
            stream: stream.clone(),
            world: world.clone(),
            users: users.clone(),
            clients: clients.clone(),
        };
        tokio::spawn(crowd.arrive(world.rng(3_000_000_000 + route as u64)));
    }
    sleep_until(world.moment(plan.seconds * 1000)).await;
}

/// The users of a route.
struct Crowd {
    route: u32,
    stream: Route,
    world: Arc<World>,
    users: Arc<Users>,
    clients: Arc<[Vec<Client>]>,
}

impl Crowd {
    /// An open loop: users arrive when they do, whatever becomes of those before. A Poisson process at the peak's rate,
    /// thinned out.
    async fn arrive(self, mut rng: SmallRng) {
        let peak = self.stream.shape.peak();
        let mut second = 0.0;
        loop {
            second -= libm::log(1.0 - rng.random::<f64>()) / (self.stream.rate * peak);
            sleep_until(self.world.moment((second * 1000.0) as u64)).await;
            if rng.random::<f64>() * peak >= self.stream.shape.factor(second) {
                continue;
            }
            let client = self.stream.abuser.unwrap_or_else(|| rng.random_range(0..self.users.clients));
            let service = self.clients[client as usize][self.route as usize].clone();
            let request = Request { client, route: self.route };
            let own = SmallRng::seed_from_u64(rng.random());
            tokio::spawn(visit(self.world.clone(), self.users.clone(), service, request, own));
        }
    }
}

/// One user: asks, waits, and perhaps asks again.
async fn visit(world: Arc<World>, users: Arc<Users>, service: Client, request: Request, mut rng: SmallRng) {
    for asked in 0..=users.times {
        let begun = world.now();
        world.record().requested(begun, request);
        let patience = Duration::from_millis(users.patience);
        let result = timeout(patience, service.clone().oneshot(request)).await;
        let took = world.now() - begun;
        let good = matches!(result, Ok(Ok(_))) && took <= users.in_time;
        let refused = matches!(&result, Ok(Err(fault)) if Fault::is_refusal(fault));
        world.record().answered(begun, request, took, good, refused);
        if good || asked == users.times || rng.random::<f64>() >= users.again {
            return;
        }
        sleep(Duration::from_millis(users.think.millis(1.0, &mut rng))).await;
    }
}
