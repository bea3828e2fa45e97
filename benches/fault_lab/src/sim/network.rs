use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    sync::oneshot,
    task::AbortHandle,
    time::{Duration, sleep},
};
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

use super::{Client, Fault, NodeService, Plan, Request, Response, World, node::Node};
use crate::stacks::{Place, Stack};

/// The way to a service: to one instance of it, or to a load balancer that asks all in turn.
///
/// Whether the server hears of a call that is dropped is the server's matter.
#[derive(Clone)]
pub struct Link {
    world: Arc<World>,
    ends: Arc<[End]>,
    turn: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct End {
    node: Arc<Node>,
    server: Client,
}

impl Link {
    fn new(world: &Arc<World>, ends: Vec<End>) -> Self {
        Self { world: world.clone(), ends: ends.into(), turn: Arc::default() }
    }
}

impl Service<Request> for Link {
    type Response = Response;
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Fault>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.ends.len();
        let (world, end) = (self.world.clone(), self.ends[turn].clone());
        Box::pin(async move {
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
        })
    }
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
            let server = stack.server(&place(), NodeService(node.clone()));
            End { node: node.clone(), server }
        });
        ends.push(served.collect::<Vec<_>>());
        nodes.push(instances);
    }
    let mut client_of = |service: usize| {
        let place = place();
        match plan.services[service].balanced_by_client {
            false => stack.client(&place, Link::new(world, ends[service].clone())),
            true => {
                let links = ends[service].iter().map(|end| Link::new(world, vec![end.clone()]));
                stack.balanced(&place, links.collect())
            }
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
            Some(_) => boxed(Link::new(world, ends[route.service].clone())),
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
