//! Calls that wait and leave, or that are no longer polled: they leave no debt to the others.

use std::time::Duration;

use axum::{Router, response::IntoResponse, routing::get};
use futures_util::future::join_all;
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, advance, sleep, timeout},
};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt, load_shed::LoadShed};
use tower_rampart::{
    Rejection, RespondLayer,
    rate_limit::{Rate, RateLimiter},
};

use super::limiter;
use crate::support::{BoxError, call, poll_ready, probe::Script, rejection_of};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

async fn request(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    stream
}

async fn response(mut stream: TcpStream) -> String {
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

// L18
#[tokio::test]
async fn clients_that_hang_up_do_not_shut_out_the_others() {
    let limiter = RateLimiter::smooth("api", Rate::per_second(100), 20 * SECOND).unwrap();
    let respond = |rejection: Rejection| (StatusCode::TOO_MANY_REQUESTS, rejection.reason()).into_response();
    let router =
        Router::new().route("/", get(|| async { "hello" })).layer(RespondLayer::new(limiter.layer().wait(), respond));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

    let crowd = join_all((0..300).map(|_| request(address))).await;
    let queued = async {
        while limiter.snapshot().full_after < SECOND {
            sleep(MS).await;
        }
    };
    timeout(SECOND, queued).await.expect("the crowd waits");
    // One stays, behind all that leave.
    let patient = request(address).await;
    sleep(50 * MS).await;
    drop(crowd);
    let honest = (0..120_u32).map(|number| async move {
        sleep(10 * MS * number).await;
        timeout(SECOND, async { response(request(address).await).await })
            .await
            .is_ok_and(|text| text.contains("200 OK"))
    });
    let served = join_all(honest).await.into_iter().filter(|served| *served).count();
    assert!(served >= 100, "{served} of 120 at the full rate");
    assert!(timeout(10 * SECOND, response(patient)).await.unwrap().contains("200 OK"));
}

// L18, L34
#[tokio::test(start_paused = true)]
async fn readinesses_that_are_dropped_leave_no_debt() {
    for pass in 0..3 {
        let limiter = RateLimiter::new("api", Rate::per_second(10)).unwrap();
        let service = limiter.layer().backpressure().layer(Script::new().1);
        let mut crowd: Vec<_> = (0..5000).map(|_| task::spawn(service.clone())).collect();
        let ready = crowd.iter_mut().map(poll_ready).filter(|readiness| readiness.is_ready()).count();
        assert_eq!(ready, 10, "the burst");
        match pass {
            0 => crowd.drain(..).for_each(drop),
            1 => crowd.drain(..).rev().for_each(drop),
            // Out of order, while others keep coming.
            _ => {
                while !crowd.is_empty() {
                    drop(crowd.swap_remove(crowd.len() * 7 / 11));
                    let _ = poll_ready(&mut task::spawn(service.clone()));
                }
            }
        }
        assert_eq!((limiter.snapshot().available, limiter.snapshot().full_after), (10, Duration::ZERO));
        advance(60 * SECOND).await;
        let mut lone = service.clone();
        let began = Instant::now();
        for _ in 0..10 {
            call(&mut lone).await.unwrap();
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}

// L18: the debt of those who left, while others still wait.
#[tokio::test(start_paused = true)]
async fn waiters_that_leave_make_room_for_those_that_stay() {
    let (limiter, _) = limiter(1, 10_000);
    limiter.check().unwrap();
    let mut crowd: Vec<_> = (0..1000).map(|_| task::spawn(limiter.acquire(1))).collect();
    for waiter in &mut crowd {
        assert_pending!(waiter.poll());
    }
    let mut last = crowd.pop().unwrap();
    drop(crowd);
    assert!(last.is_woken());
    assert_pending!(last.poll());
    assert_eq!(limiter.snapshot().full_after, 2 * SECOND);
    advance(SECOND + MS).await;
    assert!(last.is_woken());
    assert!(assert_ready!(last.poll()).is_ok());
}

// L34, G31
#[tokio::test(start_paused = true)]
async fn idle_clones_do_not_hold_tokens() {
    let limiter = RateLimiter::new("api", Rate::per_second(100)).unwrap();
    let service = LoadShed::new(limiter.layer().backpressure().layer(Script::new().1));
    // One burst on all clones. Half of them are shed, and keep their readiness.
    let mut clones: Vec<_> = (0..200).map(|_| service.clone()).collect();
    let burst = join_all(clones.iter_mut().map(|clone| async { clone.ready().await.unwrap().call("a").await })).await;
    assert_eq!(burst.iter().filter(|result| result.is_ok()).count(), 100);
    // Then only ten of them go on, at half the rate.
    let mut served = 0;
    for turn in 0..1000 {
        sleep(20 * MS).await;
        served += usize::from(clones[190 + turn % 10].ready().await.unwrap().call("a").await.is_ok());
    }
    assert!(served >= 990, "{served} of 1000");
}

// L34, G31
#[tokio::test(start_paused = true)]
async fn waiters_that_are_no_longer_polled_delay_the_others_by_a_fraction_of_a_second() {
    let (limiter, _) = limiter(1, 10_000);
    limiter.check().unwrap();
    let mut idle: Vec<_> = (0..5000).map(|_| task::spawn(limiter.acquire(1))).collect();
    for waiter in &mut idle {
        assert_pending!(waiter.poll());
    }
    let began = Instant::now();
    for number in 1..=5 {
        limiter.acquire(1).await.unwrap();
        let expected = SECOND * number;
        assert!(began.elapsed() >= expected && began.elapsed() <= expected + 200 * MS, "{:?}", began.elapsed());
    }
    // One that is polled again is first in line.
    sleep(SECOND).await;
    assert!(assert_ready!(idle[0].poll()).is_ok());
}

// L31, L34: a readiness that is not used in time counts no more.
#[tokio::test(start_paused = true)]
async fn idle_ready_clones_do_not_exceed_the_rate() {
    let (limiter, _) = limiter(5, 0);
    let service = limiter.layer().backpressure().layer(Script::new().1);
    let mut clones = Vec::new();
    for _ in 0..20 {
        let mut clone = service.clone();
        clone.ready().await.unwrap();
        clones.push(clone);
        advance(SECOND).await;
    }
    let results: Vec<Result<_, BoxError>> = join_all(clones.iter_mut().map(|clone| clone.call("late"))).await;
    let admitted = results.iter().filter(|result| result.is_ok()).count();
    assert!((5..=6).contains(&admitted), "the burst, not one call each: {admitted}");
    assert!(results.iter().filter(|result| result.is_err()).all(|result| rejection_of(result).is_some()));
    // Polled again, it waits for a new token.
    assert!(timeout(500 * MS, clones[0].ready()).await.is_err());
    assert!(timeout(SECOND, clones[0].ready()).await.is_ok());
}

// L17, L18: a manual clock that stands still does not stop a wait.
#[tokio::test(start_paused = true)]
async fn a_clock_that_stands_still_does_not_stop_a_waiter() {
    let clock = tower_rampart::clock::ManualClock::new();
    let limiter = RateLimiter::builder("api", Rate::per_second(1)).max_wait(10 * SECOND).clock(clock).build().unwrap();
    let began = Instant::now();
    for _ in 0..3 {
        limiter.acquire(1).await.unwrap();
    }
    assert!(began.elapsed() <= 3 * SECOND + 10 * MS, "{:?}", began.elapsed());
}
