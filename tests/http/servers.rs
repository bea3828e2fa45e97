//! Rejections as responses, and clients' keys.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http::{Request, Response};
use proptest::prelude::*;
use tower_rampart::{
    Rejection,
    http::{
        ClientIp, Destination, ForwardedIn, IpKey, PeerAddr, Responses, grpc_response, rate_limit_reset, retry_after,
    },
};

use crate::secs;

fn limited(after: Option<Duration>) -> Rejection {
    Rejection::rate_limited("per-user", after, 100)
}

fn header<'r>(response: &'r Response<String>, name: &str) -> Option<&'r str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

// L23
#[test]
fn a_rate_limit_is_429_with_retry_after_and_rate_limit_fields() {
    let response: Response<String> = Responses::plain().response(&limited(Some(Duration::from_millis(1200))));
    assert_eq!(response.status(), 429);
    assert_eq!(header(&response, "retry-after"), Some("2"), "rounded up");
    assert_eq!(header(&response, "ratelimit-policy"), Some("\"per-user\";q=100"));
    assert_eq!(header(&response, "ratelimit"), Some("\"per-user\";r=0;t=2"));
    assert_eq!(header(&response, "x-ratelimit-limit"), None);
    assert_eq!(response.body(), "Too Many Requests: The rate limit is exceeded.\n");
    // This crate's own client reads it back.
    assert_eq!(retry_after(response.headers()), Some(secs(2)));
    assert_eq!(rate_limit_reset(response.headers()), Some(secs(2)));
    let old: Response<String> = Responses::plain().x_rate_limit().response(&limited(Some(secs(2))));
    assert_eq!(header(&old, "x-ratelimit-limit"), Some("100"));
    assert_eq!(header(&old, "x-ratelimit-remaining"), Some("0"));
    assert_eq!(header(&old, "x-ratelimit-reset"), Some("2"));
    // A call that can never pass.
    let never: Response<String> = Responses::plain().response(&limited(None));
    assert_eq!((never.status().as_u16(), header(&never, "retry-after")), (429, None));
    assert_eq!(header(&never, "ratelimit"), Some("\"per-user\";r=0"));
    // A wait of zero is rounded up, because `Retry-After: 0` would mean now.
    let now: Response<String> = Responses::plain().response(&limited(Some(Duration::ZERO)));
    assert_eq!(header(&now, "retry-after"), Some("1"));
}

#[test]
fn overload_is_503_with_retry_after_only_if_the_time_is_known() {
    let cases = [
        (Rejection::circuit_open("b", Some(secs(7))), 503, Some("7")),
        (Rejection::circuit_open("b", None), 503, None),
        (Rejection::circuit_recovering("b", 10), 503, None),
        (Rejection::bulkhead_full("k", 5), 503, None),
        (Rejection::queue_timeout("k", secs(5)), 503, None),
        (Rejection::timed_out("t", secs(5), true), 504, None),
        (Rejection::timed_out("t", secs(5), false), 504, None),
    ];
    for (rejection, status, after) in cases {
        let response: Response<String> = Responses::plain().response(&rejection);
        assert_eq!((response.status().as_u16(), header(&response, "retry-after")), (status, after), "{rejection}");
        assert_eq!(header(&response, "ratelimit"), None);
        let response: Response<String> = Responses::plain().retry_after(Some(secs(3))).response(&rejection);
        let own = rejection.retry_after().is_none() && status == 503;
        assert_eq!(header(&response, "retry-after"), if own { Some("3") } else { after });
        let response: Response<String> = Responses::plain().retry_after(None).response(&rejection);
        assert_eq!(header(&response, "retry-after").is_some(), rejection.retry_after().is_some());
    }
}

#[test]
fn a_problem_detail_is_json() {
    let response: Response<String> = Responses::problem_json().response(&limited(Some(secs(2))));
    assert_eq!(header(&response, "content-type"), Some("application/problem+json"));
    let expected = r#"{"type":"about:blank","title":"Too Many Requests","status":429,"detail":"The rate limit is exceeded.","reason":"rate_limited","retry_after":2}"#;
    assert_eq!(response.body(), expected);
    let response: Response<String> = Responses::problem_json().response(&Rejection::timed_out("t\"", secs(2), true));
    assert!(!response.body().contains("t\\\"") && !response.body().contains("retry_after"), "{}", response.body());
}

#[test]
fn a_name_that_is_no_valid_header_value_is_sanitized() {
    let rejection = Rejection::rate_limited("per \"Größe\"\r\nset-cookie: a", Some(secs(1)), 1);
    let response: Response<String> = Responses::plain().response(&rejection);
    assert_eq!(header(&response, "ratelimit"), Some("\"per _Gr__e___set-cookie: a\";r=0;t=1"));
}

#[test]
fn each_rejection_has_its_grpc_code() {
    let cases = [
        (Rejection::circuit_open("b", Some(secs(7))), "14", Some("7000")),
        (Rejection::bulkhead_full("k", 5), "8", None),
        (Rejection::queue_timeout("k", secs(5)), "8", None),
        (limited(Some(Duration::from_micros(1))), "8", Some("1")),
        (Rejection::timed_out("t", secs(5), true), "4", None),
    ];
    for (rejection, code, pushback) in cases {
        let response: Response<String> = grpc_response(rejection);
        assert_eq!((response.status().as_u16(), header(&response, "grpc-status")), (200, Some(code)));
        assert_eq!(header(&response, "grpc-retry-pushback-ms"), pushback);
        assert_eq!(header(&response, "content-type"), Some("application/grpc"));
    }
}

fn request(peer: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request =
        headers.iter().fold(Request::builder(), |builder, (k, v)| builder.header(*k, *v)).body(()).unwrap();
    request.extensions_mut().insert(PeerAddr(SocketAddr::new(peer.parse().unwrap(), 4711)));
    request
}

fn key(client: &ClientIp, headers: &[(&str, &str)]) -> Option<String> {
    client.key(&request("10.0.0.1", headers)).map(|key| key.to_string())
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn without_proxies_the_key_is_the_peer_whatever_the_headers_say() {
    let client = ClientIp::new();
    let headers = [("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6")];
    assert_eq!(key(&client, &headers), some("10.0.0.1"));
    assert_eq!(client.key(&Request::new(())), None, "the peer is unknown");
    let of = |ip: &str| IpKey::new(ip.parse().unwrap()).to_string();
    assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
    assert_eq!(of("2001:db8:1:2:ffff::"), "2001:db8:1:2::/64");
    assert_ne!(of("2001:db8:1:3::1"), of("2001:db8:1:2::1"));
    assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
    assert_eq!(of("64:ff9b::192.0.2.1"), "192.0.2.1");
    assert_eq!(of("64:ff9b:1::192.0.2.1"), "64:ff9b:1::/64", "not the well-known prefix");
    assert_eq!(of("64:ff9b:0:0:0:1:c000:201"), "64:ff9b::/64");
    let of = |ip: &str, bits| IpKey::with_ipv6_prefix(ip.parse().unwrap(), bits).to_string();
    assert_eq!(of("2001:db8:1:2:3:4:5:6", 48), "2001:db8:1::/48");
    assert_eq!(of("2001:db8:1:2ff:3:4:5:6", 56), "2001:db8:1:200::/56");
    assert_eq!(of("2001:db8:1:2:3:4:5:6", 0), "::/0");
    assert_eq!(of("2001:db8:1:2:3:4:5:6", 128), "2001:db8:1:2:3:4:5:6/128");
    assert_eq!(of("2001:db8:1:2:3:4:5:6", 255), "2001:db8:1:2:3:4:5:6/128");
    assert_eq!(of("192.0.2.1", 8), "192.0.2.1");
    assert_ne!(IpKey::with_ipv6_prefix("::".parse().unwrap(), 0), IpKey::with_ipv6_prefix("::".parse().unwrap(), 64));
    let client = ClientIp::new().ipv6_prefix(56);
    let key = client.key(&request("2001:db8:1:2ff::1", &[])).unwrap();
    assert_eq!(key.to_string(), "2001:db8:1:200::/56");
    let client = ClientIp::from_peer(|extensions| extensions.get::<IpAddr>().copied());
    let mut request = Request::new(());
    request.extensions_mut().insert("192.0.2.7".parse::<IpAddr>().unwrap());
    assert_eq!(client.key(&request).unwrap().to_string(), "192.0.2.7");
}

#[test]
fn behind_proxies_the_entry_written_by_the_first_proxy_counts() {
    let one = ClientIp::new().behind(1, ForwardedIn::XForwardedFor);
    let two = ClientIp::new().behind(2, ForwardedIn::XForwardedFor);
    let entries = [("x-forwarded-for", "6.6.6.6, 192.0.2.7, 10.0.0.9")];
    assert_eq!(key(&one, &entries), some("10.0.0.9"));
    assert_eq!(key(&two, &entries), some("192.0.2.7"));
    let lines = [("x-forwarded-for", "6.6.6.6, 192.0.2.7"), ("x-forwarded-for", "10.0.0.9")];
    assert_eq!(key(&two, &lines), some("192.0.2.7"));
    for (entry, expected) in [
        ("192.0.2.7:1234", "192.0.2.7"),
        ("[2001:db8::1]:1234", "2001:db8::/64"),
        ("[2001:db8::1]", "2001:db8::/64"),
        ("2001:db8::1", "2001:db8::/64"),
        ("\"192.0.2.7\"", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
    ] {
        assert_eq!(key(&one, &[("x-forwarded-for", entry)]), some(expected), "{entry}");
    }
    assert_eq!(key(&two, &[("x-forwarded-for", "192.0.2.7")]), some("10.0.0.1"), "it bypassed a proxy");
    assert_eq!(key(&one, &[]), some("10.0.0.1"));
    for unknown in ["unknown", "_hidden", "", "1.2.3", "192.0.2.7 "] {
        let expected = match unknown {
            "192.0.2.7 " => some("192.0.2.7"),
            "" => some("10.0.0.1"), // no entry at all
            _ => None,
        };
        assert_eq!(key(&one, &[("x-forwarded-for", unknown)]), expected, "{unknown:?}");
    }
}

#[test]
fn forwarded_is_parsed_as_in_its_rfc() {
    let one = ClientIp::new().behind(1, ForwardedIn::Forwarded);
    for (element, expected) in [
        ("for=192.0.2.7", some("192.0.2.7")),
        ("For=\"[2001:db8:cafe::17]:4711\"", some("2001:db8:cafe::/64")),
        ("proto=http;by=10.0.0.9;for=192.0.2.7;host=\"a;for=6.6.6.6,b\"", some("192.0.2.7")),
        ("for=6.6.6.6, for=192.0.2.7", some("192.0.2.7")),
        ("for=\"6.6.6.6, for=192.0.2.7", some("192.0.2.7")), // a quote that the client left open
        ("for=\"a, for=\"6.6.6.6\", for=192.0.2.7;proto=https", some("192.0.2.7")),
        ("for=192.0.2.7;host=\"a\\\",for=6.6.6.6;x=\\\"b\"", some("192.0.2.7")), // a quoted pair
        ("for=6.6.6.6;host=\"a\\\\\", for=192.0.2.7;host=\"\\\\\"", some("192.0.2.7")),
        ("for=\"192.0.2.7:_port\"", some("192.0.2.7")),
        ("for=\"\\1\\9\\2.0.2.7\"", some("192.0.2.7")),
        ("for=6.6.6.6,,for=192.0.2.7, ,", some("192.0.2.7")),
        ("for=192.0.2.7 ; proto=https", some("192.0.2.7")),
        (";;for=192.0.2.7;", some("192.0.2.7")),
        ("for=unknown", None),
        ("for=_hidden", None),
        ("proto=https", None),
        ("for=6.6.6.6, for=192.0.2.7;for=192.0.2.8", None), // twice
        ("for=6.6.6.6, for=192.0.2.7;host", None),
        ("for=6.6.6.6, for=192.0.2.7 host=a", None),
        ("for=6.6.6.6, for =192.0.2.7", None),
        ("for=6.6.6.6, for=\"192.0.2.7", None),
        ("for=6.6.6.6, for=\"192.0.2.7\\\"", None),
        ("for=6.6.6.6, for=\"192.0.2.7:999999\"", None),
        ("for=6.6.6.6, for=\"[2001:db8::1\"", None),
        ("for=6.6.6.6, for=\"2001:db8::1]\"", None),
        ("for=6.6.6.6, for=\"[192.0.2.7]\"", None),
    ] {
        assert_eq!(key(&one, &[("forwarded", element)]), expected, "{element}");
    }
}

#[test]
fn spellings_of_a_destination_are_one_key() {
    let of = |uri: &str| Destination::of(&Request::get(uri).body(()).unwrap()).map(|key| key.to_string());
    for (uri, expected) in [
        ("http://a.example/", "a.example:80"),
        ("http://a.example:80/x?y", "a.example:80"),
        ("http://a.example:/", "a.example:80"),
        ("HTTP://A.Example.", "a.example:80"),
        ("http://user:secret@a.example", "a.example:80"),
        ("http://user@a.example:8080", "a.example:8080"),
        ("https://a.example", "a.example:443"),
        ("wss://a.example", "a.example:443"),
        ("grpc://a.example", "a.example"),
        ("a.example:443", "a.example:443"),
        ("http://[2001:DB8:0::1]/", "[2001:db8::1]:80"),
        ("http://192.0.2.7:081/", "192.0.2.7:81"),
    ] {
        assert_eq!(of(uri), some(expected), "{uri}");
    }
    assert_eq!(of("/relative"), None);
    let by_host = |hosts: &[&str]| {
        let builder = hosts.iter().fold(Request::get("/"), |builder, host| builder.header("host", *host));
        Destination::of(&builder.body(()).unwrap()).map(|key| key.to_string())
    };
    assert_eq!(by_host(&["A.example"]), some("a.example:80"));
    assert_eq!(by_host(&["a.example:8080"]), some("a.example:8080"));
    assert_eq!(by_host(&["a.example", "b.example"]), None);
    assert_eq!(by_host(&["a.example:99999"]), None);
    assert_eq!(by_host(&[""]), None);
}

proptest! {
    /// The key is the address that the trusted proxies saw.
    #[test]
    fn no_client_header_changes_the_key(spoofed in prop::collection::vec("[ -~]{0,30}", 0..4), proxies in 1..4_usize) {
        let chain: Vec<_> = (0..proxies).map(|hop| format!("192.0.2.{}", hop + 1)).collect();
        for (header, style) in [(ForwardedIn::XForwardedFor, ""), (ForwardedIn::Forwarded, "for=")] {
            let name = if style.is_empty() { "x-forwarded-for" } else { "forwarded" };
            let mut builder = Request::builder();
            let mut lines = spoofed.clone();
            // The first proxy appends to the client's last line, the others to a line of their own.
            let first = format!("{style}{}", chain[0]);
            match lines.last_mut() {
                Some(last) => *last = format!("{last}, {first}"),
                None => lines.push(first),
            }
            lines.extend(chain[1..].iter().map(|hop| format!("{style}\"{hop}:80\"")));
            for line in &lines {
                builder = builder.header(name, line.as_str());
            }
            let request = builder.body(()).unwrap();
            let client = ClientIp::new().behind(proxies, header);
            prop_assert_eq!(client.key(&request).map(|key| key.to_string()), some("192.0.2.1"));
        }
    }
}
