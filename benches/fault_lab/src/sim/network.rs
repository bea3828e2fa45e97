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

use super::{Client, Fault, Plan, Request, Response, Stack, StackContext, World, node::Node};

/// An instance and its server's stack.
#[derive(Clone)]
struct Endpoint {
    node: Arc<Node>,
    server: Client,
}

/// A link to a service: to one of its instances, or to a load balancer that sends to all of them in
/// turn.
///
/// Whether dropping a call cancels it on the server depends on the server.
fn link(world: &Arc<World>, endpoints: &[Endpoint]) -> Client {
    let (world, endpoints) = (world.clone(), Arc::<[Endpoint]>::from(endpoints));
    let turns = Arc::new(AtomicUsize::new(0));
    boxed(service_fn(move |request| {
        let turn = turns.fetch_add(1, Ordering::Relaxed) % endpoints.len();
        send(world.clone(), endpoints[turn].clone(), request)
    }))
}

async fn send(world: Arc<World>, endpoint: Endpoint, request: Request) -> Result<Response, Fault> {
    world.record().called(world.now(), endpoint.node.service());
    let Some(connection) = endpoint.node.connect() else {
        sleep(Duration::from_millis(1)).await;
        return Err(Fault::ConnectionRefused);
    };
    let (reply, response) = oneshot::channel();
    let cancels = endpoint.node.cancels_on_disconnect();
    let task = tokio::spawn(async move {
        let _connection = connection;
        let result = endpoint.server.oneshot(request).await;
        if let Err(Ok(Response { work }) | Err(Fault::Failed(work))) = reply.send(result) {
            world.record().wasted(world.now(), endpoint.node.service(), work);
        }
    });
    let _abort = cancels.then(|| AbortOnDrop(task.abort_handle()));
    response.await.unwrap_or(Err(Fault::ConnectionReset))
}

/// Cancels the call on the server when the caller drops it.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// All instances by service, and a client for each of the users' clients and routes.
type Built = (Vec<Vec<Arc<Node>>>, Vec<Vec<Client>>);

/// Builds the services, connects those that call each other, and creates the clients.
pub(super) fn build(world: &Arc<World>, plan: &Plan, stack: &dyn Stack) -> Built {
    let mut contexts = 0;
    let mut context = || {
        contexts += 1;
        StackContext { clock: world.clock(), seed: world.seed(2_000_000_000 + contexts) }
    };
    let mut nodes = Vec::new();
    let mut endpoints = Vec::new();
    for (service, config) in plan.services.iter().enumerate() {
        let instances = (0..config.instances).map(|instance| Arc::new(Node::new(world, service, instance, plan)));
        let instances: Vec<_> = instances.collect();
        let service_endpoints = instances.iter().map(|node| {
            let (handler, node) = (node.clone(), node.clone());
            let service = service_fn(move |request| handler.clone().handle(request));
            Endpoint { node, server: stack.server(&context(), boxed(service)) }
        });
        endpoints.push(service_endpoints.collect::<Vec<_>>());
        nodes.push(instances);
    }
    let mut client_of = |service: usize| {
        let context = context();
        match plan.services[service].balanced_by_client {
            false => stack.client(&context, link(world, &endpoints[service])),
            true => stack.balanced(&context, endpoints[service].chunks(1).map(|one| link(world, one)).collect()),
        }
    };
    for (service, instances) in nodes.iter().enumerate() {
        for node in instances {
            let mut clients = Vec::new();
            for route in 0..plan.routes.len() {
                let Some(next) = (plan.services[service].calls)(route as u32) else { continue };
                assert!(next > service, "a service calls only later services");
                node.connect_to(route, shared(&mut clients, next, &mut client_of));
            }
        }
    }
    let clients = (0..plan.users.clients).map(|_| {
        let mut own = Vec::new();
        let by_route = plan.routes.iter().map(|route| match route.abuser {
            Some(_) => link(world, &endpoints[route.service]),
            None => shared(&mut own, route.service, &mut client_of),
        });
        by_route.collect()
    });
    let clients = clients.collect();
    (nodes, clients)
}

/// One stack per caller and service, shared by all routes.
fn shared(known: &mut Vec<(usize, Client)>, service: usize, make: impl FnOnce(usize) -> Client) -> Client {
    if let Some((_, client)) = known.iter().find(|(known, _)| *known == service) {
        return client.clone();
    }
    let client = make(service);
    known.push((service, client.clone()));
    client
}

/// Boxes a service: the lab passes all services around in this form.
pub fn boxed<S>(service: S) -> Client
where
    S: Service<Request, Response = Response, Error = Fault, Future: Send> + Clone + Send + Sync + 'static,
{
    BoxCloneSyncService::new(service)
}
