//! The running system: nine instances and the gateway in front of them.

use std::{net::SocketAddr, time::Duration};

use tokio::net::TcpListener;
use tower_rampart::BoxError;

use crate::{
    app::{self, Gateway},
    pool::{Pool, Settings},
    upstream::Instance,
};

/// The services, in the order of the list of instances.
pub const SERVICES: [&str; 3] = ["users", "orders", "catalog"];

/// A gateway and its services.
pub struct System {
    pub address: SocketAddr,
    pub gateway: Gateway,
    pub instances: Vec<Instance>,
}

impl System {
    /// Starts three instances of each service, and the gateway at `address`.
    pub async fn start(address: SocketAddr, settings: Settings) -> Result<Self, BoxError> {
        let mut instances = Vec::new();
        let mut pools = Vec::new();
        for service in SERVICES {
            for number in 1..=3 {
                instances.push(Instance::start(service, number).await?);
            }
            let own = instances.iter().filter(|instance| instance.service == service);
            let known: Result<Vec<_>, BoxError> =
                own.map(|instance| Ok((instance.name.clone(), instance.address.to_string().parse()?))).collect();
            pools.push(Pool::new(service, known?, settings)?);
        }
        let [users, orders, catalog] = pools.try_into().map_err(|_| "there must be three services")?;
        let gateway = Gateway { users, orders, catalog };
        let router = app::router(gateway.clone())?.into_make_service_with_connect_info::<SocketAddr>();
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, gateway, instances })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Waits until the health checks have taken an instance out of rotation, or put it back.
    pub async fn in_rotation(&self, name: &str, expected: bool) {
        let members = || self.gateway.pools().into_iter().flat_map(Pool::members);
        let member = members().find(|member| member.name == name).expect("the instance exists");
        until(|| member.in_rotation() == expected).await;
    }
}

/// Waits until a condition holds, for at most half a minute.
pub async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("the condition holds within half a minute");
}
