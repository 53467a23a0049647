//! What monitoring and people are told over HTTP, and that asking costs nobody else anything.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Action, Daemon, Mail, PATIENCE, Script, SmtpServer, World, tool, unique_loopback};

/// A response.
#[derive(Debug)]
struct Response {
    head: String,
    body: String,
}

impl Response {
    fn of(octets: &[u8]) -> Self {
        let text = String::from_utf8(octets.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
        Self { head: head.to_owned(), body: body.to_owned() }
    }

    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Returns the value of a sample, by its name and labels.
    fn sample(&self, sample: &str) -> f64 {
        let name = format!("cmail_dispatch_{sample} ");
        let line = self.body.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {sample} in {}", self.body)).parse().unwrap()
    }
}

/// Lets the daemon answer at an address that nobody else uses, and returns it.
fn serve(world: &mut World) -> SocketAddr {
    let free = TcpListener::bind((unique_loopback(), 0)).unwrap();
    let address = free.local_addr().unwrap();
    world.set("metrics", address);
    address
}

fn ask(mut stream: impl Read + Write, request: impl AsRef<[u8]>) -> Response {
    stream.write_all(request.as_ref()).unwrap();
    let mut octets = Vec::new();
    stream.read_to_end(&mut octets).unwrap();
    Response::of(&octets)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn get_as(address: SocketAddr, path: &str, accepted: &str) -> Response {
    ask(connect(address), format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accepted}\r\n\r\n"))
}

fn get(address: SocketAddr, path: &str) -> Response {
    get_as(address, path, "*/*")
}

/// Asks again and again until the answer is as it must become.
fn get_until(address: SocketAddr, path: &str, is_there: impl Fn(&Response) -> bool) -> Response {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let response = get(address, path);
        if is_there(&response) {
            return response;
        }
        assert!(Instant::now() < deadline, "{}", response.body);
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

#[test]
fn what_happens_to_mail_is_counted_in_both_formats() {
    let (mut world, server) = World::with_server(
        Script::new()
            .when(|command| command.line.contains("<later@example.org>").then(|| "450 4.2.0 later".into())),
    );
    let address = serve(&mut world);
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    world.insert(&Mail::to("a@example.org").data("three octets and more"));
    server.wait_for_messages(1);
    world.insert(&Mail::to("later@example.org").data("another"));
    let deferred = "attempts_total{result=\"deferred\"}";
    let told = get_until(address, "/metrics", |response| {
        response.sample(deferred) == 1.0 && response.sample("mails_total{fate=\"delivered\"}") == 1.0
    });
    assert!(told.head.contains("application/openmetrics-text; version=1.0.0"), "{}", told.head);
    assert!(told.body.ends_with("# EOF\n"), "{}", told.body);
    assert_eq!(told.sample("attempts_total{result=\"delivered\"}"), 1.0);
    assert_eq!(told.sample("failures_total{kind=\"recipient\",class=\"4\"}"), 1.0);
    assert_eq!(told.sample("delivered_octets_total"), 21.0);
    assert_eq!(told.sample("mails{place=\"waiting\"}"), 1.0);
    assert_eq!(told.sample("connections_max"), 500.0);
    assert!(told.sample("delay_seconds_count{phase=\"transfer\"}") >= 2.0);
    assert!(told.sample("store_seconds_count{kind=\"commit\"}") >= 1.0);
    let text = get_as(address, "/metrics", "text/plain;version=0.0.4");
    assert!(text.head.contains("text/plain; version=0.0.4"), "{}", text.head);
    assert!(text.body.contains("# TYPE cmail_dispatch_mails_total counter\n"), "{}", text.body);
    assert!(text.body.contains("# TYPE cmail_dispatch_mails gauge\n") && !text.body.contains("# EOF"));
    daemon.terminate();
}

#[test]
fn ready_live_and_what_is_not_there() {
    let (mut world, server) = World::with_server(Script::new().always("DATA", Action::Stall));
    let address = serve(&mut world);
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    assert_eq!((get(address, "/ready").status(), get(address, "/live").status()), (200, 200));
    assert_eq!(get(address, "/elsewhere").status(), 404);
    let request = |text: &str| ask(connect(address), text);
    let refused = request("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert!(refused.status() == 405 && refused.head.contains("Allow: GET, HEAD"), "{refused:?}");
    let head = request("HEAD /live HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(
        head.status() == 200 && head.body.is_empty() && head.head.contains("Content-Length: 5"),
        "{head:?}"
    );
    // While a conversation is under way, the daemon takes its time to stop.
    world.insert(&Mail::to("a@example.org"));
    server.wait("DATA", |records| records.count("DATA") == 1);
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_output("asked to stop");
    assert_eq!((get(address, "/ready").status(), get(address, "/live").status()), (503, 200));
    daemon.terminate();
}

#[test]
fn clients_that_are_silent_slow_or_hostile_cost_nobody_else_anything() {
    let (mut world, server) = World::with_server(Script::new());
    let address = serve(&mut world);
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let silent: Vec<TcpStream> = (0..100).map(|_| connect(address)).collect();
    let mut dribbling = connect(address);
    dribbling.write_all(b"GET /metr").unwrap();
    for hostile in
        [&b"\x16\x03\x01\x02\x00\x01\x00\xff\xff"[..], b"GET / \0 HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n"]
    {
        let response = ask(connect(address), hostile);
        assert_eq!(response.status(), 400, "{hostile:?}");
    }
    let mut endless = connect(address);
    // It may be closed before all of it is written.
    let _ = endless.write_all(format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(100_000)).as_bytes());
    // Neither monitoring nor mail waits for any of them.
    let asked = Instant::now();
    assert_eq!(get(address, "/metrics").status(), 200);
    world.insert(&Mail::to("a@example.org"));
    server.wait_for_messages(1);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    drop((silent, dribbling, endless));
    daemon.terminate();
}

#[test]
fn a_client_that_says_nothing_is_closed_after_a_while() {
    let mut world = World::new();
    let address = serve(&mut world);
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let since = Instant::now();
    let mut silent = connect(address);
    assert_eq!(silent.read(&mut [0; 10]).unwrap(), 0);
    assert!(since.elapsed() >= Duration::from_secs(9), "{:?}", since.elapsed());
    daemon.terminate();
}

#[test]
fn the_page_is_told_what_failed_and_what_waits() {
    let words = "450 4.7.1 <script>alert(1)</script> \"later\"";
    let (mut world, server) = World::with_server(Script::new().always("RCPT", words));
    let address = serve(&mut world);
    let closed = SmtpServer::start_at(Script::new(), (server.ip(), 0).into());
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    world.insert(&Mail::to("a@example.org"));
    let status = get_until(address, "/status.json", |response| {
        response.body.contains("\"name\":\"example.org\"") && response.body.contains("alert(1)")
    });
    assert!(status.head.contains("Content-Type: application/json"), "{}", status.head);
    let json: serde_json::Value = serde_json::from_str(&status.body).unwrap();
    assert_eq!(json["queue"]["places"]["waiting"], 1);
    assert_eq!(json["failures"]["recipient"], 1);
    let told = json["last_failures"][0]["text"].as_str().unwrap();
    assert!(told.contains("<script>alert(1)</script>") && told.contains("<a@example.org>"), "{told}");
    let destination = &json["queue"]["destinations"][0];
    assert_eq!((&destination["name"], &destination["ages"][0]), (&"example.org".into(), &1.into()));
    let counted_ms = json["queue"]["counted_ms"].as_u64();
    assert!(counted_ms.is_some() && counted_ms <= json["now_ms"].as_u64(), "{json}");
    let attempts =
        ["delivered", "deferred", "failed", "uncertain"].map(|result| json["attempts"][result].as_u64());
    // The mail by which the daemon was found ready has failed for good.
    assert_eq!(attempts, [Some(0), Some(1), Some(1), Some(0)]);
    assert!(json["queue"]["oldest_s"].is_u64() && json["samples"].is_array(), "{json}");
    let page = get(address, "/");
    assert!(
        page.head.contains("Content-Security-Policy: default-src 'none'; style-src 'sha256-"),
        "{}",
        page.head
    );
    assert!(page.head.contains("text/html; charset=utf-8") && page.body.starts_with("<!DOCTYPE html>"));
    drop(closed);
    daemon.terminate();
}

#[test]
fn a_socket_can_have_a_path_and_is_replaced_after_a_kill() {
    let mut world = World::new();
    let path = world.path("metrics.socket");
    world.set("metrics", path.display());
    for _ in 0..2 {
        let daemon = world.start();
        daemon.wait_until_ready(&world);
        let response = ask(UnixStream::connect(&path).unwrap(), "GET /live HTTP/1.0\r\n\r\n");
        assert_eq!((response.status(), &*response.body), (200, "live\n"));
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o660);
        daemon.kill();
        assert!(path.exists());
    }
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    daemon.terminate();
    assert!(!path.exists());
}

#[test]
fn an_address_that_is_taken_is_told_at_the_start() {
    let mut world = World::new();
    let taken = TcpListener::bind((unique_loopback(), 0)).unwrap();
    world.set("metrics", taken.local_addr().unwrap());
    let finished = Daemon::run(&world.write_config(), &["nodetach", "nodrop"]);
    assert_eq!(finished.code(), Some(1));
    let address = taken.local_addr().unwrap().to_string();
    assert!(
        finished.stderr.contains(&format!("metrics cannot be served at {address}: ")),
        "{}",
        finished.stderr
    );
    // Somebody may be a daemon at work, so that the configuration is valid.
    assert_eq!(world.run(&["check"]).code(), Some(0));
    // A pass serves nobody, and does not need it.
    assert_eq!(world.run(&["deliver", "example.org"]).code(), Some(0));
}

#[test]
fn what_check_accepts_can_be_served() {
    let mut world = World::new();
    std::fs::write(world.path("a file"), "of somebody").unwrap();
    let places = [
        "192.0.2.1:9125".to_owned(),
        world.path("a file").display().to_string(),
        world.path("missing/socket").display().to_string(),
    ];
    for place in places {
        world.set("metrics", &place);
        for words in [&["check"][..], &["nodetach", "nodrop"]] {
            let finished = Daemon::run(&world.write_config(), words);
            assert_eq!(finished.code(), Some(1), "{place} {words:?}");
            let told = format!("metrics cannot be served at {place}: ");
            assert!(finished.stderr.contains(&told), "{words:?}: {}", finished.stderr);
        }
    }
}

#[test]
fn named_destinations_are_counted_by_themselves_and_a_reload_names_others() {
    let (mut world, server) = World::with_server(
        Script::new().when(|command| command.line.contains("<later@").then(|| "450 4.2.0 later".into())),
    );
    world.route("example.net", &server);
    let address = serve(&mut world);
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let attempts = |destination: &str, result: &str| {
        format!("destination_attempts_total{{destination=\"{destination}\",result=\"{result}\"}}")
    };
    assert!(
        !get(address, "/metrics").body.contains("destination_"),
        "nothing is counted that nobody has named"
    );
    let rename = |world: &mut World, names: &str| {
        world.set("metrics_destinations", names);
        assert_eq!(tool::run(world, &["reload"]).code(), Some(0));
    };
    rename(&mut world, "EXAMPLE.org");
    world.insert(&Mail::to("a@example.org"));
    let later = world.insert(&Mail::to("later@example.org"));
    let other = world.insert(&Mail::to("later@example.net"));
    world.database.wait_for_failure(later);
    world.database.wait_for_failure(other);
    let expected = [
        (attempts("EXAMPLE.org", "delivered"), 1.0),
        (attempts("EXAMPLE.org", "deferred"), 1.0),
        (attempts("other", "deferred"), 1.0),
        ("destination_mails{destination=\"EXAMPLE.org\"}".to_owned(), 1.0),
        ("destination_mails{destination=\"other\"}".to_owned(), 1.0),
    ];
    let is_counted = |response: &Response| {
        let sample = |name: &str| response.body.contains(name).then(|| response.sample(name));
        expected.iter().all(|(name, count)| sample(name) == Some(*count))
    };
    get_until(address, "/metrics", is_counted);
    // What was counted stays where the name stays, and a new name begins at zero.
    rename(&mut world, "example.net EXAMPLE.org");
    let is_new = |response: &Response| response.body.contains("destination=\"example.net\"");
    let response = get_until(address, "/metrics", is_new);
    assert_eq!(response.sample(&attempts("EXAMPLE.org", "delivered")), 1.0);
    assert_eq!(response.sample(&attempts("example.net", "deferred")), 0.0);
    assert_eq!(response.sample("destination_mails{destination=\"example.net\"}"), 1.0);
    assert_eq!(response.sample("destination_mails{destination=\"other\"}"), 0.0);
    daemon.terminate();
    for (wrong, told) in
        [("a..b", "this is no destination"), ("other", "is not known here: it must be another name")]
    {
        let checked = world.set("metrics_destinations", wrong).run(&["check"]);
        assert!(checked.stderr.contains(told), "{}", checked.stderr);
    }
}
