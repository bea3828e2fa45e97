//! The example gateway over sockets: one test per promise of its documentation.
#![allow(clippy::disallowed_methods, missing_docs, unreachable_pub, dead_code)] // it runs in real time

#[path = "../examples/gateway/app.rs"]
mod app;
#[path = "../examples/gateway/load.rs"]
mod load;
#[path = "../examples/gateway/pool.rs"]
mod pool;
#[path = "../examples/support/serve.rs"]
mod serve;
#[path = "../examples/gateway/system.rs"]
mod system;
#[path = "../examples/gateway/upstream.rs"]
mod upstream;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use load::Load;
use pool::Settings;
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use system::System;

/// Starts the gateway with frequent health checks, so that tests need not wait long for them.
async fn start() -> System {
    let settings = Settings { check_every: Duration::from_millis(100), ..Settings::default() };
    System::start("127.0.0.1:0".parse().unwrap(), settings).await.unwrap()
}

async fn get(system: &System, path: &str, user: &str) -> Response {
    Client::new().get(system.url(path)).bearer_auth(format!("user-{user}")).send().await.unwrap()
}

async fn json(response: Response) -> Value {
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

async fn login(system: &System, email: &str) -> Response {
    login_from([127, 0, 0, 1], system, email).await
}

/// Logs in from another address of the loopback network.
async fn login_from(sender: [u8; 4], system: &System, email: &str) -> Response {
    let body = serde_json::json!({ "email": email, "password": "secret" }).to_string();
    let client = Client::builder().local_address(std::net::IpAddr::from(sender)).build().unwrap();
    client.post(system.url("/login")).body(body).send().await.unwrap()
}

fn instances_of<'a>(system: &'a System, service: &'static str) -> impl Iterator<Item = &'a upstream::Instance> {
    system.instances.iter().filter(move |instance| instance.service == service)
}

#[tokio::test]
async fn requests_reach_the_service_of_their_route_with_the_rest_of_the_path() {
    let system = start().await;
    for service in system::SERVICES {
        let answer = json(get(&system, &format!("/api/{service}/a/b?c=d"), "alice").await).await;
        assert!(answer["instance"].as_str().unwrap().starts_with(service), "{answer}");
        assert_eq!((&answer["path"], &answer["user"]), (&"/a/b".into(), &"alice".into()));
        // The remaining time is forwarded.
        let left: u64 = answer["deadline"].as_str().unwrap().parse().unwrap();
        assert!((1..=1000).contains(&left), "{left}");
    }
    assert_eq!(get(&system, "/api/payroll/1", "alice").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn paths_are_forwarded_as_written() {
    let system = start().await;
    // Decoded, the first would not be a URI, the second would gain a query, and the third would
    // point elsewhere.
    for path in ["/a%20b", "/a%3Fadmin=1", "/a%2F..%2Fb", "//a/", "/%ff"] {
        let answer = json(get(&system, &format!("/api/orders{path}"), "alice").await).await;
        assert_eq!(answer["path"], path);
    }
    // A user's name becomes part of a path.
    for name in ["a b", "../1", "a?b=c", ""] {
        assert_eq!(get(&system, "/api/dashboard", name).await.status(), StatusCode::UNAUTHORIZED, "{name}");
    }
}

#[tokio::test]
async fn the_101st_request_of_a_user_per_minute_gets_429_and_other_users_do_not() {
    let system = start().await;
    let (client, began) = (Client::new(), std::time::Instant::now());
    let mut passed = 0;
    let rejected = loop {
        let response = client.get(system.url("/api/catalog/1")).bearer_auth("user-eager").send().await.unwrap();
        if response.status() != StatusCode::OK {
            break response;
        }
        passed += 1;
    };
    // A hundred, plus the tokens that refilled meanwhile on a slow machine.
    let refilled = (began.elapsed().as_secs_f64() * 100.0 / 60.0) as u32;
    assert!((100..=100 + refilled).contains(&passed), "{passed} passed, with {refilled} refilled tokens");
    assert_eq!(rejected.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(rejected.headers().contains_key("ratelimit"));
    let after: u64 = rejected.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&after), "{after}");
    assert_eq!(get(&system, "/api/catalog/1", "alice").await.status(), StatusCode::OK);
    // Anonymous clients are limited by address, separately.
    let anonymous = Client::new().get(system.url("/api/catalog/1")).header("x-user", "alice").send().await.unwrap();
    assert_eq!(json(anonymous).await["user"], Value::Null);
}

#[tokio::test]
async fn the_sixth_login_for_an_email_address_gets_429_in_any_spelling() {
    let system = start().await;
    let spellings =
        ["alice@example.com", " Alice@Example.com", "ALICE@EXAMPLE.COM", "alice@example.com ", "alice@example.COM"];
    for email in spellings {
        assert_eq!(login(&system, email).await.status(), StatusCode::OK, "{email}");
    }
    let rejected = login(&system, "alice@example.com").await;
    assert_eq!(rejected.status(), StatusCode::TOO_MANY_REQUESTS);
    let after: u64 = rejected.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    // Five attempts per fifteen minutes: one every three minutes.
    assert!((170..=180).contains(&after), "{after}");
    assert_eq!(login(&system, "bob@example.com").await.status(), StatusCode::OK);
    assert_eq!(login(&system, "nonsense").await.status(), StatusCode::BAD_REQUEST);
    let big = Client::new().post(system.url("/login")).body(vec![b'x'; 100_000]).send().await.unwrap();
    assert_eq!(big.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_sender_cannot_lock_another_out_of_an_account_and_cannot_try_many_accounts() {
    let system = start().await;
    let attacker = [127, 0, 0, 2];
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(login_from(attacker, &system, "victim@example.com").await.status());
    }
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::OK).count(), 5, "{statuses:?}");
    for attempt in 0..5 {
        let status = login(&system, "victim@example.com").await.status();
        assert_eq!(status, StatusCode::OK, "the victim's attempt {attempt}");
    }
    let mut accounts = 0;
    while login_from(attacker, &system, &format!("{accounts}@example.com")).await.status() == StatusCode::OK {
        accounts += 1;
        assert!(accounts < 100);
    }
    // Thirty in all, and one more for every half minute that the test takes.
    assert!((25..=30).contains(&accounts), "{accounts} accounts");
    assert_eq!(login(&system, "bob@example.com").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn request_ids_are_forwarded_or_created() {
    let system = start().await;
    let with = |id: &'static str| Client::new().get(system.url("/api/users/1")).header("x-request-id", id).send();
    let kept = with("0123-abcd-4567").await.unwrap();
    assert_eq!(kept.headers()["x-request-id"], "0123-abcd-4567");
    assert_eq!(json(kept).await["request_id"], "0123-abcd-4567");
    // A header that is not an id is replaced.
    let made = with("<script>alert(1)</script>").await.unwrap();
    let id = made.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert!(id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-'), "{id}");
    assert_eq!(json(made).await["request_id"], id.as_str());
}

#[tokio::test]
async fn a_retry_goes_to_another_instance() {
    // Without health checks no instance leaves rotation, so only the retry helps.
    let settings = Settings { check_every: Duration::from_secs(3600), ..Settings::default() };
    let system = System::start("127.0.0.1:0".parse().unwrap(), settings).await.unwrap();
    let failing: Vec<_> = instances_of(&system, "orders").take(2).collect();
    failing.iter().for_each(|instance| instance.fail(true));
    // Two of three instances fail. Three attempts reach the third if no instance is tried twice.
    // The breakers would help too, so they are kept closed.
    for request in 0..20 {
        system.gateway.orders.members().iter().for_each(|member| member.breaker.close());
        let answer = get(&system, "/api/orders/1", &format!("u{request}")).await;
        assert_eq!(answer.status(), StatusCode::OK, "request {request}");
        assert_eq!(json(answer).await["instance"], "orders-3");
    }
    assert!(failing.iter().all(|instance| instance.requests() > 0), "some requests tried the failing instances first");
    // A POST that may have been processed is not sent again.
    let before: u64 = instances_of(&system, "orders").map(upstream::Instance::requests).sum();
    for _ in 0..10 {
        system.gateway.orders.members().iter().for_each(|member| member.breaker.close());
        let post = Client::new().post(system.url("/api/orders")).bearer_auth("user-poster");
        let _ = post.body("{}").send().await.unwrap();
        let post = Client::new().post(system.url("/api/orders/new")).bearer_auth("user-poster");
        post.body("{}").send().await.unwrap();
    }
    let after: u64 = instances_of(&system, "orders").map(upstream::Instance::requests).sum();
    assert_eq!(after - before, 10);
}

#[tokio::test]
async fn killing_any_instance_under_load_fails_no_request() {
    let system = start().await;
    let urls = ["/api/users/7", "/api/orders/7", "/api/catalog/7"].map(|path| system.url(path)).to_vec();
    let load = Load::start(urls, 8, Duration::from_millis(5));
    load.more(50).await;
    for instance in &system.instances {
        instance.kill().await;
        system.in_rotation(&instance.name, false).await;
        load.more(50).await;
        let before = instance.requests();
        instance.revive().await.unwrap();
        system.in_rotation(&instance.name, true).await;
        while instance.requests() == before {
            load.more(1).await;
        }
    }
    let tally = load.stop().await;
    assert_eq!(tally.failed.load(Relaxed), 0);
    assert!(tally.good.load(Relaxed) >= 500);
}

#[tokio::test]
async fn health_checks_remove_an_instance_open_its_breaker_and_restore_it() {
    let system = start().await;
    let health = || async { json(Client::new().get(system.url("/health")).send().await.unwrap()).await };
    let first = |health: &Value| health["services"]["users"][0].clone();
    let before = health().await;
    assert_eq!((&before["status"], &first(&before)["circuit"]), (&"up".into(), &"closed".into()));
    system.instances[0].fail(true);
    system.in_rotation("users-1", false).await;
    // The health checks are the only traffic, so they open the circuit.
    let member = &system.gateway.users.members()[0];
    system::until(|| member.state().to_string() != "closed").await;
    let during = health().await;
    assert_eq!((&during["status"], &first(&during)["in_rotation"]), (&"up".into(), &false.into()));
    assert_ne!(first(&during)["circuit"], "closed");
    assert_eq!(system.instances[0].requests(), 0);
    system.instances[0].fail(false);
    system.in_rotation("users-1", true).await;
    assert_eq!(first(&health().await)["circuit"], "closed");
    // Without any instance the service is down and responds immediately.
    for instance in instances_of(&system, "users") {
        instance.kill().await;
        system.in_rotation(&instance.name, false).await;
    }
    let down = Client::new().get(system.url("/health")).send().await.unwrap();
    assert_eq!(down.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&system, "/api/users/1", "alice").await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn the_dashboard_shows_partial_results() {
    let system = start().await;
    let whole = get(&system, "/api/dashboard", "alice").await;
    assert_eq!(whole.status(), StatusCode::OK);
    let whole = json(whole).await;
    for service in system::SERVICES {
        assert_eq!(whole[service]["status"], "complete", "{whole}");
    }
    assert_eq!(whole["users"]["data"]["path"], "/alice");
    for instance in instances_of(&system, "orders") {
        instance.kill().await;
    }
    let partial = get(&system, "/api/dashboard", "alice").await;
    assert_eq!(partial.status(), StatusCode::OK);
    let partial = json(partial).await;
    let statuses = system::SERVICES.map(|service| partial[service]["status"].as_str().unwrap().to_owned());
    assert_eq!(statuses, ["complete", "degraded", "complete"], "{partial}");
    for instance in &system.instances {
        instance.kill().await;
    }
    assert_eq!(get(&system, "/api/dashboard", "alice").await.status(), StatusCode::SERVICE_UNAVAILABLE);
}
