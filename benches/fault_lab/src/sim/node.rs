use std::sync::{Arc, Mutex, OnceLock};

use rand::{RngExt, rngs::SmallRng};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Duration, sleep, sleep_until},
};
use tower::ServiceExt;

use super::{Change, Client, Fault, Request, Response, World, plan};

/// How an instance is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Well.
    Well,
    /// Refuses connections.
    Refuses,
    /// Takes requests and never answers them.
    Hangs,
    /// Answers this share of the requests with an error, after the usual work.
    Fails(f64),
    /// Answers all requests with an error in a millisecond, as a bad build does.
    FailsAtOnce,
    /// Takes so many times longer.
    Slower(f64),
    /// Stands still: what is worked on ends afterwards, what comes waits.
    Paused,
    /// Has only this share of its workers.
    Fewer(f64),
    /// Refuses connections, and for so many seconds after that takes longer, from so many times on, as with cold caches.
    RefusesThenCold(u64, f64),
}

/// An instance of a service: workers with a queue before them.
#[derive(Debug)]
pub struct Node {
    world: Arc<World>,
    service: usize,
    config: plan::Service,
    mode: Mutex<Mode>,
    changed: Notify,
    slow: Mutex<f64>,
    workers: Arc<Semaphore>,
    waiting: Mutex<usize>,
    open: Mutex<usize>,
    rng: Mutex<SmallRng>,
    next: Vec<OnceLock<Client>>,
}

impl Node {
    pub(super) fn new(world: &Arc<World>, service: usize, instance: usize, plan: &plan::Plan) -> Self {
        let config = plan.services[service].clone();
        Self {
            world: world.clone(),
            service,
            mode: Mutex::new(Mode::Well),
            changed: Notify::new(),
            slow: Mutex::new(1.0),
            workers: Arc::new(Semaphore::new(config.workers)),
            waiting: Mutex::new(0),
            open: Mutex::new(0),
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

    pub(super) fn hears(&self) -> bool {
        self.config.hears
    }

    /// A connection, if there is one to be had.
    pub(super) fn connect(self: &Arc<Self>) -> Option<Connection> {
        let mut open = self.open.lock().unwrap();
        if self.refuses() || *open >= self.config.connections {
            return None;
        }
        *open += 1;
        Some(Connection(self.clone()))
    }

    fn refuses(&self) -> bool {
        matches!(self.mode(), Mode::Refuses | Mode::RefusesThenCold(..))
    }

    /// Sees to a request. Dropped while it waits, it leaves the queue; dropped while it works, the work goes on, for
    /// nobody.
    pub(super) async fn see_to(self: Arc<Self>, request: Request) -> Result<Response, Fault> {
        match self.mode() {
            Mode::Refuses | Mode::RefusesThenCold(..) => return Err(Fault::Reset),
            Mode::Hangs => {}
            Mode::FailsAtOnce => {
                sleep(Duration::from_millis(1)).await;
                return Err(Fault::Failed(1));
            }
            _ => {
                let permit = self.worker().await?;
                let (work, fails) = self.draw();
                let shift = Shift { node: &self, permit: Some(permit), ends: self.world.now() + work, work };
                sleep(Duration::from_millis(work)).await;
                self.no_longer(Mode::Paused).await;
                let _permit = shift.done();
                if fails || self.refuses() {
                    return Err(Fault::Failed(work));
                }
                if let Some(next) = self.next[request.route as usize].get() {
                    next.clone().oneshot(request).await.map_err(|_| Fault::Failed(work))?;
                }
                return Ok(Response { work });
            }
        }
        // Until it is killed.
        self.no_longer(Mode::Hangs).await;
        Err(Fault::Reset)
    }

    async fn worker(&self) -> Result<OwnedSemaphorePermit, Fault> {
        struct Waits<'a>(&'a Mutex<usize>);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                *self.0.lock().unwrap() -= 1;
            }
        }
        if let Ok(permit) = self.workers.clone().try_acquire_owned() {
            return Ok(permit);
        }
        {
            let mut waiting = self.waiting.lock().unwrap();
            if *waiting >= self.config.queue {
                return Err(Fault::Busy);
            }
            *waiting += 1;
        }
        let _waits = Waits(&self.waiting);
        Ok(self.workers.clone().acquire_owned().await.expect("it is never closed"))
    }

    fn draw(&self) -> (u64, bool) {
        let mut rng = self.rng.lock().unwrap();
        let filled = *self.waiting.lock().unwrap() as f64 / self.config.queue.max(1) as f64;
        let factor = *self.slow.lock().unwrap() * (1.0 + self.config.thrash * filled);
        let share = match self.mode() {
            Mode::Fails(share) => share,
            _ => self.config.noise,
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

    /// Waits while it is in this mode. Those who wait go on in the order in which they came.
    async fn no_longer(&self, mode: Mode) {
        while self.mode() == mode {
            self.changed.notified().await;
        }
    }
}

/// What a request holds until it is answered.
#[derive(Debug)]
pub(super) struct Connection(Arc<Node>);

impl Drop for Connection {
    fn drop(&mut self) {
        *self.0.open.lock().unwrap() -= 1;
    }
}

/// A worker at work.
struct Shift<'a> {
    node: &'a Arc<Node>,
    permit: Option<OwnedSemaphorePermit>,
    ends: u64,
    work: u64,
}

impl Shift<'_> {
    fn done(mut self) -> Option<OwnedSemaphorePermit> {
        self.node.world.record().worked(self.node.world.now(), self.node.service, self.work);
        self.permit.take()
    }
}

impl Drop for Shift<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            let (node, ends, work) = (self.node.clone(), self.ends, self.work);
            tokio::spawn(async move {
                sleep_until(node.world.moment(ends)).await;
                node.no_longer(Mode::Paused).await;
                let mut record = node.world.record();
                record.worked(node.world.now(), node.service, work);
                record.wasted(node.world.now(), node.service, work);
                drop(permit);
            });
        }
    }
}

/// Carries a change out, and takes it back.
pub(super) async fn apply(world: Arc<World>, nodes: Vec<Arc<Node>>, change: Change) {
    sleep_until(world.moment(change.at.start * 1000)).await;
    let mut taken = Vec::new();
    for node in &nodes {
        node.set(change.mode);
        match change.mode {
            Mode::Slower(factor) => *node.slow.lock().unwrap() = factor,
            Mode::Fewer(share) => {
                let lost = node.config.workers - (node.config.workers as f64 * share).round() as usize;
                let workers = node.workers.clone();
                taken.push(tokio::spawn(workers.acquire_many_owned(lost as u32)));
            }
            _ => {}
        }
    }
    sleep_until(world.moment(change.at.end * 1000)).await;
    for task in taken {
        task.abort();
        drop(task.await);
    }
    for node in &nodes {
        *node.slow.lock().unwrap() = 1.0;
        node.set(Mode::Well);
    }
    if let Mode::RefusesThenCold(seconds, factor) = change.mode {
        for second in 0..seconds {
            let left = (seconds - second) as f64 / seconds as f64;
            for node in &nodes {
                *node.slow.lock().unwrap() = 1.0 + (factor - 1.0) * left;
            }
            sleep(Duration::from_secs(1)).await;
        }
        for node in &nodes {
            *node.slow.lock().unwrap() = 1.0;
        }
    }
}
