//! Fallbacks: a value, a function of the request, another service; for refusals, or for any error.
#![allow(missing_docs)]

use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_rampart::{Event, EventKind, ServiceBuilderExt, circuit_breaker::CircuitBreaker, fallback::Fallback};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let breaker = CircuitBreaker::consecutive("recommendations", 2)?;
    let failing =
        service_fn(|user: u32| async move { Err::<Vec<String>, BoxError>(format!("no answer for {user}").into()) });

    // Only what the breaker refuses is replaced: the first two callers see the error itself.
    let value = ServiceBuilder::new()
        .fallback(Fallback::value("recommendations", vec!["bestseller".to_owned()]).observer(told))
        .circuit_breaker(&breaker)
        .service(failing);
    for user in 1..=3 {
        println!("value, user {user}: {:?}", value.clone().oneshot(user).await);
    }

    // Any error is, by what a function makes of the request.
    let function = ServiceBuilder::new()
        .fallback(
            Fallback::function("recommendations", |user: u32, _failed: Result<Vec<String>, BoxError>| async move {
                Ok(vec![format!("what user {user} liked last time")])
            })
            .when(|result: Result<&Vec<String>, &BoxError>| result.is_err())
            .observer(told),
        )
        .service(failing);
    println!("function: {:?}", function.oneshot(4).await);

    // Or by another service.
    let local = service_fn(|_: u32| async { Ok::<_, BoxError>(vec!["from the local copy".to_owned()]) });
    let service = ServiceBuilder::new()
        .fallback(Fallback::service("recommendations", local).observer(told))
        .circuit_breaker(&breaker)
        .service(failing);
    println!("service: {:?}", service.oneshot(5).await);
    Ok(())
}

fn told(event: &Event<'_>) {
    if let EventKind::FellBack { served } = event.kind {
        println!("  [{} fell back: {}]", event.name, served.as_str());
    }
}
