use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    sync::oneshot,
    task::AbortHandle,
    time::{Duration, sleep},
};
use tower::{Service, ServiceExt, service_fn, util::BoxCloneSyncService};

use super::{Client, Fault, Plan, Request, Response, World, node::Node};
use crate::stacks::{Place, Stack};

/// An instance and its server's stack.
#[derive(Clone)]
struct End {
    node: Arc<Node>,
    server: Client,
}

/// The way to a service: to one instance of it, or to a load balancer that asks all in turn.
///
/// Whether the server hears of a call that is dropped is the server's matter.
fn link(world: &Arc<World>, ends: &[End]) -> Client {
    let (world, ends) = (world.clone(), Arc::<[End]>::from(ends));
    let turns = Arc::new(AtomicUsize::new(0));
    boxed(service_fn(move |request| {
        let turn = turns.fetch_add(1, Ordering::Relaxed) % ends.len();
        send(world.clone(), ends[turn].clone(), request)
    }))
}

async fn send(world: Arc<World>, end: End, request: Request) -> Result<Response, Fault> {
    world.record().called(world.now(), end.node.service());
    let Some(connection) = end.node.connect() else {
        sleep(Duration::from_millis(1)).await;
        return Err(Fault::Refused);
    };
    let (answer, answered) = oneshot::channel();
    let hears = end.node.hears();
    let served = tokio::spawn(async move {
        let _connection = connection;
        let result = end.server.oneshot(request).await;
        if let Err(Ok(Response { work }) | Err(Fault::Failed(work))) = answer.send(result) {
            world.record().wasted(world.now(), end.node.service(), work);
        }
    });
    let _leaving = hears.then(|| Leaving(served.abort_handle()));
    answered.await.unwrap_or(Err(Fault::Reset))
}

/// Tells the server when the caller leaves.
struct Leaving(AbortHandle);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// All instances by service, and a client for each of the users' clients and routes.
type Built = (Vec<Vec<Arc<Node>>>, Vec<Vec<Client>>);

/// Builds the services, connects those that call each other, and makes the clients.
pub(super) fn build(world: &Arc<World>, plan: &Plan, stack: &dyn Stack) -> Built {
    let mut places = 0;
    let mut place = || {
        places += 1;
        Place { clock: world.clock(), seed: world.seed(2_000_000_000 + places) }
    };
    let mut nodes = Vec::new();
    let mut ends = Vec::new();
    for (service, config) in plan.services.iter().enumerate() {
        let instances = (0..config.instances).map(|instance| Arc::new(Node::new(world, service, instance, plan)));
        let instances: Vec<_> = instances.collect();
        let served = instances.iter().map(|node| {
            let (working, node) = (node.clone(), node.clone());
            let service = service_fn(move |request| working.clone().see_to(request));
            End { node, server: stack.server(&place(), boxed(service)) }
        });
        ends.push(served.collect::<Vec<_>>());
        nodes.push(instances);
    }
    let mut client_of = |service: usize| {
        let place = place();
        match plan.services[service].balanced_by_client {
            false => stack.client(&place, link(world, &ends[service])),
            true => stack.balanced(&place, ends[service].chunks(1).map(|end| link(world, end)).collect()),
        }
    };
    for (service, instances) in nodes.iter().enumerate() {
        for node in instances {
            let mut known = Vec::new();
            for route in 0..plan.routes.len() {
                let Some(next) = (plan.services[service].calls)(route as u32) else { continue };
                assert!(next > service, "services call later ones only");
                node.connect_to(route, shared(&mut known, next, &mut client_of));
            }
        }
    }
    let clients = (0..plan.users.clients).map(|_| {
        let mut known = Vec::new();
        let by_route = plan.routes.iter().map(|route| match route.abuser {
            Some(_) => link(world, &ends[route.service]),
            None => shared(&mut known, route.service, &mut client_of),
        });
        by_route.collect()
    });
    let clients = clients.collect();
    (nodes, clients)
}

/// One stack per caller and service, whatever the route.
fn shared(known: &mut Vec<(usize, Client)>, service: usize, make: impl FnOnce(usize) -> Client) -> Client {
    if let Some((_, client)) = known.iter().find(|(known, _)| *known == service) {
        return client.clone();
    }
    let client = make(service);
    known.push((service, client.clone()));
    client
}

/// Boxes a service, which is how all are handed on in the lab.
pub fn boxed<S>(service: S) -> Client
where
    S: Service<Request, Response = Response, Error = Fault, Future: Send> + Clone + Send + Sync + 'static,
{
    BoxCloneSyncService::new(service)
}
