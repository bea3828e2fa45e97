use std::sync::{Arc, Mutex, OnceLock};

use rand::{RngExt, rngs::SmallRng};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Duration, sleep, sleep_until},
};
use tower::ServiceExt;

use super::{Change, Client, Fault, Request, Response, World, plan};

/// The state of an instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Healthy.
    Healthy,
    /// Refuses connections.
    RefusesConnections,
    /// Accepts requests and never responds.
    Hangs,
    /// Fails this share of the requests, after the usual work.
    Fails(f64),
    /// Fails all requests within a millisecond, as a bad build does.
    FailsImmediately,
    /// Takes this many times longer.
    Slower(f64),
    /// Paused: current work completes afterwards, and new requests wait.
    Paused,
    /// Has only this share of its workers.
    FewerWorkers(f64),
    /// Refuses connections. Afterwards work takes this many times longer, as with cold caches, and
    /// recovers over this many seconds.
    RefusesThenCold(u64, f64),
}

/// An instance of a service: workers behind a queue.
#[derive(Debug)]
pub struct Node {
    world: Arc<World>,
    service: usize,
    config: plan::Service,
    mode: Mutex<Mode>,
    changed: Notify,
    slowdown: Mutex<f64>,
    workers: Arc<Semaphore>,
    queued: Mutex<usize>,
    connections: Mutex<usize>,
    rng: Mutex<SmallRng>,
    next: Vec<OnceLock<Client>>,
}

impl Node {
    pub(super) fn new(world: &Arc<World>, service: usize, instance: usize, plan: &plan::Plan) -> Self {
        let config = plan.services[service].clone();
        Self {
            world: world.clone(),
            service,
            mode: Mutex::new(Mode::Healthy),
            changed: Notify::new(),
            slowdown: Mutex::new(1.0),
            workers: Arc::new(Semaphore::new(config.workers)),
            queued: Mutex::new(0),
            connections: Mutex::new(0),
            rng: Mutex::new(world.rng(1_000_000 * (service as u64 + 1) + instance as u64)),
            next: plan.routes.iter().map(|_| OnceLock::new()).collect(),
            config,
        }
    }

    pub(super) fn service(&self) -> usize {
        self.service
    }

    pub(super) fn connect_to(&self, route: usize, next: Client) {
        self.next[route].set(next).expect("a route is connected once");
    }

    pub(super) fn cancels_on_disconnect(&self) -> bool {
        self.config.cancels_on_disconnect
    }

    /// Opens a connection, unless the instance refuses it.
    pub(super) fn connect(self: &Arc<Self>) -> Option<Connection> {
        let mut connections = self.connections.lock().unwrap();
        if self.refuses_connections() || *connections >= self.config.connections {
            return None;
        }
        *connections += 1;
        Some(Connection(self.clone()))
    }

    fn refuses_connections(&self) -> bool {
        matches!(self.mode(), Mode::RefusesConnections | Mode::RefusesThenCold(..))
    }

    /// Handles a request. If dropped while queued, the request leaves the queue; if dropped while a
    /// worker is on it, the work continues and its result is discarded.
    pub(super) async fn handle(self: Arc<Self>, request: Request) -> Result<Response, Fault> {
        match self.mode() {
            Mode::RefusesConnections | Mode::RefusesThenCold(..) => return Err(Fault::ConnectionReset),
            Mode::Hangs => {}
            Mode::FailsImmediately => {
                sleep(Duration::from_millis(1)).await;
                return Err(Fault::Failed(1));
            }
            _ => {
                let permit = self.worker().await?;
                let (work, fails) = self.draw();
                let working = Working { node: &self, permit: Some(permit), until: self.world.now() + work, work };
                sleep(Duration::from_millis(work)).await;
                self.wait_until_not(Mode::Paused).await;
                let _permit = working.complete();
                if fails || self.refuses_connections() {
                    return Err(Fault::Failed(work));
                }
                if let Some(next) = self.next[request.route as usize].get() {
                    next.clone().oneshot(request).await.map_err(|_| Fault::Failed(work))?;
                }
                return Ok(Response { work });
            }
        }
        // Hangs until the mode changes.
        self.wait_until_not(Mode::Hangs).await;
        Err(Fault::ConnectionReset)
    }

    async fn worker(&self) -> Result<OwnedSemaphorePermit, Fault> {
        struct QueueSlot<'a>(&'a Mutex<usize>);
        impl Drop for QueueSlot<'_> {
            fn drop(&mut self) {
                *self.0.lock().unwrap() -= 1;
            }
        }
        if let Ok(permit) = self.workers.clone().try_acquire_owned() {
            return Ok(permit);
        }
        {
            let mut queued = self.queued.lock().unwrap();
            if *queued >= self.config.queue {
                return Err(Fault::QueueFull);
            }
            *queued += 1;
        }
        let _slot = QueueSlot(&self.queued);
        Ok(self.workers.clone().acquire_owned().await.expect("the semaphore is never closed"))
    }

    fn draw(&self) -> (u64, bool) {
        let mut rng = self.rng.lock().unwrap();
        let queue_fill = *self.queued.lock().unwrap() as f64 / self.config.queue.max(1) as f64;
        let factor = *self.slowdown.lock().unwrap() * (1.0 + self.config.thrash * queue_fill);
        let share = match self.mode() {
            Mode::Fails(share) => share,
            _ => self.config.background_failures,
        };
        (self.config.time.millis(factor, &mut rng), rng.random::<f64>() < share)
    }

    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
        self.changed.notify_waiters();
    }

    /// Waits until the instance has left this mode. Waiters resume in the order in which they
    /// arrived.
    async fn wait_until_not(&self, mode: Mode) {
        while self.mode() == mode {
            self.changed.notified().await;
        }
    }
}

/// A connection, held by a request until its response.
#[derive(Debug)]
pub(super) struct Connection(Arc<Node>);

impl Drop for Connection {
    fn drop(&mut self) {
        *self.0.connections.lock().unwrap() -= 1;
    }
}

/// A worker that handles a request.
struct Working<'a> {
    node: &'a Arc<Node>,
    permit: Option<OwnedSemaphorePermit>,
    until: u64,
    work: u64,
}

impl Working<'_> {
    fn complete(mut self) -> Option<OwnedSemaphorePermit> {
        self.node.world.record().worked(self.node.world.now(), self.node.service, self.work);
        self.permit.take()
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            let (node, until, work) = (self.node.clone(), self.until, self.work);
            tokio::spawn(async move {
                sleep_until(node.world.instant(until)).await;
                node.wait_until_not(Mode::Paused).await;
                let mut record = node.world.record();
                record.worked(node.world.now(), node.service, work);
                record.wasted(node.world.now(), node.service, work);
                drop(permit);
            });
        }
    }
}

/// Applies a change, and reverts it at its end.
pub(super) async fn apply(world: Arc<World>, nodes: Vec<Arc<Node>>, change: Change) {
    sleep_until(world.instant(change.at.start * 1000)).await;
    let mut removed = Vec::new();
    for node in &nodes {
        node.set(change.mode);
        match change.mode {
            Mode::Slower(factor) => *node.slowdown.lock().unwrap() = factor,
            Mode::FewerWorkers(share) => {
                let lost = node.config.workers - (node.config.workers as f64 * share).round() as usize;
                let workers = node.workers.clone();
                removed.push(tokio::spawn(workers.acquire_many_owned(lost as u32)));
            }
            _ => {}
        }
    }
    sleep_until(world.instant(change.at.end * 1000)).await;
    for task in removed {
        task.abort();
        drop(task.await);
    }
    for node in &nodes {
        *node.slowdown.lock().unwrap() = 1.0;
        node.set(Mode::Healthy);
    }
    if let Mode::RefusesThenCold(seconds, factor) = change.mode {
        for second in 0..seconds {
            let left = (seconds - second) as f64 / seconds as f64;
            for node in &nodes {
                *node.slowdown.lock().unwrap() = 1.0 + (factor - 1.0) * left;
            }
            sleep(Duration::from_secs(1)).await;
        }
        for node in &nodes {
            *node.slowdown.lock().unwrap() = 1.0;
        }
    }
}
