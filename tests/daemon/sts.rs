//! MTA-STS (RFC 8461): policies that domains publish over HTTPS say which servers are theirs, and that these prove it.

use crate::support::shim::Shim;
use crate::support::smtp_server::SmtpServer;
use crate::support::tls::{Authority, Identity};
use crate::support::{Mail, Script, WebServer, World, tool};
use hickory_proto::rr::RecordType;

const HOST: &str = "mx.example.org";
const RECORD: &str = "_mta-sts.example.org";
const WEB: &str = "mta-sts.example.org";

/// A domain with one MX, a policy, and the authority that vouches for its hosts.
struct Scene {
    world: World,
    server: SmtpServer,
    web: WebServer,
    authority: Authority,
}

fn policy(mode: &str, host: &str) -> String {
    format!("version: STSv1\r\nmode: {mode}\r\nmx: {host}\r\nmax_age: 604800\r\n")
}

impl Scene {
    /// Nothing where there is no C compiler, which is told.
    fn new(level: &str, mode: &str, script: impl FnOnce(&Authority) -> Script) -> Option<Self> {
        let authority = Authority::new();
        let (mut world, server) = World::with_server(script(&authority));
        let shim = Shim::build(world.directory())?;
        let web = WebServer::start(&authority.issue(&[WEB]));
        shim.serve_https_at(web.port());
        world.shim = Some(shim);
        world.dns.a(WEB, web.ip());
        world.dns.txt(RECORD, &["v=STSv1; ", "id=1;"]);
        world.set("portprio", format!("{0}@starttls {0}", server.port()));
        std::fs::write(world.path("authority.pem"), authority.pem()).unwrap();
        world.set("tls_trustfile", world.path("authority.pem").display());
        world.set("tls_policy", format!("* {level}"));
        let scene = Self { world, server, web, authority };
        scene.publish(&policy(mode, HOST));
        Some(scene)
    }

    /// A server whose certificate is as it should be.
    fn trusted(level: &str, mode: &str) -> Option<Self> {
        Self::new(level, mode, |authority| Script::new().starttls(&authority.issue(&[HOST])))
    }

    fn publish(&self, policy: &str) {
        self.web.answer("200 OK\r\nContent-Type: text/plain; charset=utf-8", policy);
    }

    fn delivered(&self) {
        let before = self.server.records().messages.len();
        assert_eq!(self.world.failures_after_a_pass(&Mail::to("a@example.org")), []);
        assert_eq!(self.server.records().messages.len(), before + 1);
    }

    /// Expects that mail fails temporarily for this reason, and that nothing of it was said to the server.
    fn refused(&self, reason: &str) {
        let before = self.server.records().count("MAIL");
        let failure = self.world.failure_after_a_pass(&Mail::to("b@example.org"));
        assert!(!failure.fatal && failure.text.contains(reason), "{failure:?}");
        assert_eq!(self.server.records().count("MAIL"), before, "{}", self.server.records().transcript());
    }

    fn stored(&self) -> Vec<String> {
        self.world.database.texts("SELECT sts_domain || ' ' || sts_id || ' ' || sts_policy FROM dispatch_sts")
    }
}

#[test]
fn an_enforced_policy_is_fetched_once_stored_and_held_to() {
    let Some(scene) = Scene::trusted("sts", "enforce") else { return };
    scene.delivered();
    scene.delivered();
    let get = ("mta-sts.example.org".to_owned(), "GET /.well-known/mta-sts.txt HTTP/1.1".to_owned());
    assert_eq!(scene.web.asked(), [get], "the second process knows it from the database");
    assert_eq!(scene.stored(), [format!("example.org 1 {}", policy("enforce", HOST))]);
    assert_eq!(scene.world.dns.count(RECORD, RecordType::TXT), 2);
    let records = scene.server.records();
    assert!(records.messages.iter().all(|message| message.tls), "{}", records.transcript());
}

#[test]
fn a_server_that_does_not_prove_itself_gets_nothing() {
    let self_signed = |_: &Authority| Script::new().starttls(&Identity::self_signed(&[HOST]));
    let Some(scene) = Scene::new("sts", "enforce", self_signed) else { return };
    scene.refused("or by an authority that is not trusted (MTA-STS)");
    let other_name = |authority: &Authority| Script::new().starttls(&authority.issue(&["example.org"]));
    let Some(scene) = Scene::new("sts", "enforce", other_name) else { return };
    scene.refused("it is for another name (MTA-STS)");
    let Some(scene) = Scene::new("sts", "enforce", |_| Script::new()) else { return };
    scene.refused("STARTTLS is not offered, but MTA-STS needs it");
}

#[test]
fn a_host_that_the_policy_does_not_name_gets_nothing_until_the_policy_changes() {
    let Some(scene) = Scene::trusted("sts", "enforce") else { return };
    scene.publish(&policy("enforce", "*.example.net"));
    scene.refused("mx.example.org is not among the hosts of the MTA-STS policy of example.org");
    scene.publish(&policy("enforce", "*.example.org"));
    scene.refused("is not among the hosts");
    // A new id makes it be fetched again.
    scene.world.dns.remove(RECORD);
    scene.world.dns.txt(RECORD, &["v=STSv1; id=2;"]);
    scene.delivered();
    assert_eq!(scene.stored(), [format!("example.org 2 {}", policy("enforce", "*.example.org"))]);
}

#[test]
fn in_testing_mode_mail_goes_all_the_same_and_the_log_says_what_is_wrong() {
    let Some(scene) = Scene::new("sts", "testing", |_| Script::new()) else { return };
    scene.world.insert(&Mail::to("a@example.org"));
    let finished = scene.world.run(&["deliver", "example.org"]);
    assert_eq!(scene.server.records().messages.len(), 1, "{}", finished.stderr);
    let told = "STARTTLS is not offered, but MTA-STS needs it; mail goes all the same";
    assert!(finished.stderr.contains(told), "{}", finished.stderr);
}

#[test]
fn a_policy_that_cannot_be_fetched_is_none() {
    let good = policy("enforce", HOST);
    let text = "Content-Type: text/plain";
    for (head, body) in [
        ("404 Not Found\r\nContent-Type: text/plain", good.clone()),
        ("302 Found\r\nLocation: https://mta-sts.example.org/.well-known/mta-sts.txt", String::new()),
        ("200 OK\r\nContent-Type: text/html", good.clone()),
        ("200 OK", good.clone()),
        (&format!("200 OK\r\n{text}"), good.replace("STSv1", "STSv2")),
        (&format!("200 OK\r\n{text}"), format!("{good}{}", "x".repeat(65_536))),
    ] {
        let Some(scene) = Scene::new("sts", "enforce", |_| Script::new()) else { return };
        scene.web.answer(head, &body);
        scene.delivered();
        assert_eq!(scene.web.asked().len(), 1, "{head}: once, and no redirection is followed");
        assert_eq!(scene.world.database.tables().iter().filter(|name| *name == "dispatch_sts").count(), 0);
    }
}

#[test]
fn the_host_of_a_policy_must_have_a_certificate_that_is_trusted() {
    type Issue = fn(&Authority) -> Identity;
    let issues: [Issue; 4] = [
        |_| Identity::self_signed(&[WEB]),
        |authority| authority.issue(&["example.org"]),
        |authority| authority.issue_expired(WEB),
        |_| Authority::new().issue(&[WEB]),
    ];
    for (number, issue) in issues.into_iter().enumerate() {
        let Some(mut scene) = Scene::new("sts else=encrypt", "enforce", |_| Script::new()) else { return };
        scene.web.show(&issue(&scene.authority));
        scene.refused("STARTTLS is not offered, but tls_policy needs it");
        assert!(scene.web.asked().is_empty(), "{number}: nothing is said to it");
        scene.world.set("tls_policy", "* sts");
        scene.delivered();
    }
}

#[test]
fn a_policy_that_is_known_stays_in_force_when_its_record_and_its_host_are_gone() {
    let Some(mut scene) = Scene::trusted("sts", "enforce") else { return };
    scene.delivered();
    scene.world.dns.remove(RECORD);
    scene.world.dns.remove(WEB);
    let plain = SmtpServer::start(Script::new());
    scene.world.dns.remove(HOST);
    scene.world.dns.a(HOST, plain.ip());
    scene.world.set("portprio", format!("{0}@starttls {0}", plain.port()));
    let failure = scene.world.failure_after_a_pass(&Mail::to("b@example.org"));
    assert!(failure.text.contains("STARTTLS is not offered, but MTA-STS needs it"), "{failure:?}");
    assert_eq!(plain.records().messages.len(), 0);
    // The administrator may delete it.
    scene.world.database.execute("DELETE FROM dispatch_sts WHERE sts_domain = 'example.org'");
    assert_eq!(scene.world.failures_after_a_pass(&Mail::to("c@example.org")), []);
    assert_eq!(plain.records().messages.len(), 1);
}

#[test]
fn without_the_level_nothing_is_asked_and_nothing_is_created() {
    for level in ["may", "dane", "verify"] {
        let Some(scene) = Scene::trusted(level, "enforce") else { return };
        scene.delivered();
        assert_eq!(scene.world.dns.count(RECORD, RecordType::TXT), 0, "{level}");
        assert!(scene.web.asked().is_empty(), "{level}");
        assert!(!scene.world.database.tables().iter().any(|name| name == "dispatch_sts"), "{level}");
    }
}

#[test]
fn auto_goes_by_tlsa_records_where_there_are_some_and_else_by_the_policy() {
    let own = Identity::self_signed(&[HOST]);
    let Some(scene) = Scene::new("auto", "enforce", |_| Script::new().starttls(&own)) else { return };
    scene.world.dns.sign();
    scene.refused("(MTA-STS)");
    scene.world.dns.tlsa(HOST, scene.server.port(), [3, 1, 1], &own.pin());
    scene.delivered();
    // A policy excuses no server from its records.
    let Some(scene) = Scene::trusted("auto", "enforce") else { return };
    scene.world.dns.sign();
    scene.delivered();
    scene.world.dns.tlsa(HOST, scene.server.port(), [3, 1, 1], &own.pin());
    scene.refused("it matches none of the TLSA records (DANE)");
}

#[test]
fn explain_tells_which_policy_holds_and_until_when_and_a_probe_proves_it() {
    let Some(scene) = Scene::trusted("sts", "enforce") else { return };
    let daemon = scene.world.start();
    daemon.wait_until_ready(&scene.world);
    let text = tool::output(&scene.world, &["explain", "example.org"]);
    assert!(text.contains("MTA-STS      enforce for mx.example.org until "), "{text}");
    assert!(text.contains("the certificate must be verified"), "{text}");
    let records = tool::records(&scene.world, &["explain", "example.org"]);
    let sts = &records.iter().find(|record| record["kind"] == "explanation").unwrap()["mta_sts"];
    assert_eq!((sts["mode"].as_str(), sts["id"].as_str()), (Some("enforce"), Some("1")));
    let held_ms = sts["until_ms"].as_i64().unwrap() - sts["fetched_ms"].as_i64().unwrap();
    assert_eq!(held_ms, 604_800_000);
    let probe = tool::output(&scene.world, &["probe", "a@example.org"]);
    assert!(probe.contains("the MTA-STS policy of example.org has the mode enforce until"), "{probe}");
    scene.world.dns.remove(RECORD);
    scene.publish("nothing");
    let text = tool::output(&scene.world, &["explain", "other.example"]);
    assert!(!text.contains("enforce"), "{text}");
    daemon.terminate();
}
