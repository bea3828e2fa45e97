use super::{Balance, Client, LabClock, boxed};

/// What a stack is built with.
#[derive(Clone, Copy, Debug)]
pub struct StackContext {
    /// The run's clock.
    pub clock: LabClock,
    /// A seed of its own.
    pub seed: u64,
}

/// A way to protect a system: the layers around its clients and its servers.
pub trait Stack: Send + Sync {
    /// Its name, for tables.
    fn name(&self) -> &str;

    /// Wraps the link to a service. Each client process has its own.
    fn client(&self, context: &StackContext, link: Client) -> Client;

    /// Wraps the links to all instances, for a client that balances between them itself. By default
    /// the stack goes around the balancer.
    fn balanced(&self, context: &StackContext, links: Vec<Client>) -> Client {
        self.client(context, boxed(Balance::new(links, context.seed)))
    }

    /// Wraps an instance, in its server.
    fn server(&self, context: &StackContext, node: Client) -> Client {
        let _ = context;
        node
    }
}
