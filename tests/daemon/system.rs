//! What the system says is noticed when it changes, and read again at SIGHUP (contract, 4).

use crate::support::tls::Authority;
use crate::support::{Behaviour, Daemon, DnsServer, Mail, Script, SmtpServer, World};
use nix::sys::signal::Signal;
use std::fs::write;

/// A daemon that starts before the network: its name server does not answer.
const TOO_EARLY: &str = "nameserver 127.0.0.2\noptions timeout:1 attempts:1\n";

/// A daemon with files of its own in the place of `/etc/resolv.conf` and `/etc/hosts`, and the one mail that it cannot send
/// yet.
struct Scene {
    world: World,
    server: SmtpServer,
    daemon: Daemon,
    mail: i64,
}

impl Scene {
    fn start(settings: &[(&str, u32)]) -> Option<Self> {
        let (mut world, server) = World::with_server(Script::new());
        let Some(dns) = DnsServer::start_at_dns_port() else {
            crate::support::skip("port 53 is not free for it");
            return None;
        };
        world.dns = dns;
        world.dns.behave("client.example", Behaviour::ServFail);
        world.route("example.org", &server);
        world.unset("resolver").set("retryinterval", 1).set("retries", 1000).set("verbosity", 3);
        for (directive, value) in settings {
            world.set(directive, value);
        }
        write(world.path("resolv.conf"), TOO_EARLY).unwrap();
        write(world.path("hosts"), "127.0.0.1 localhost\n").unwrap();
        let files = [(world.path("resolv.conf"), "/etc/resolv.conf"), (world.path("hosts"), "/etc/hosts")];
        let files: Vec<_> = files.iter().map(|(path, target)| (path.as_path(), *target)).collect();
        let mail = world.insert(&Mail::to("a@example.org"));
        let daemon = Daemon::spawn_with_files(&files, &world.write_config(), &["nodetach", "nodrop"])?;
        world.database.wait_for_failure(mail);
        Some(Self { world, server, daemon, mail })
    }

    fn name_servers_come_up(&self) {
        let text = format!("nameserver {}\n", self.world.dns.address().ip());
        write(self.world.path("resolv.conf"), text).unwrap();
    }
}

#[test]
fn a_network_that_comes_up_later_is_noticed() {
    let Some(scene) = Scene::start(&[]) else { return };
    scene.name_servers_come_up();
    scene.server.wait_for_messages(1);
    scene.world.database.wait_until_empty();
    let relay = format!("relay.test:{}", scene.server.port());
    let handed_off = scene.world.insert(&Mail::to("b@example.org").remote(&relay));
    scene.world.database.wait_for_failure(handed_off);
    write(scene.world.path("hosts"), format!("{} relay.test\n", scene.server.ip())).unwrap();
    scene.server.wait_for_messages(2);
    scene.world.database.wait_until_empty();
    scene.daemon.terminate();
}

#[test]
fn sighup_reads_again_what_the_system_says() {
    // It is hours until the daemon would look by itself at the outbox.
    let Some(scene) = Scene::start(&[("interval", 36_000)]) else { return };
    scene.name_servers_come_up();
    scene.daemon.signal(Signal::SIGHUP);
    scene.server.wait_for_messages(1);
    scene.world.database.wait_until_empty();
    let log = scene.daemon.terminate();
    let asked = log
        .find("asked to reread the configuration, resolv.conf, hosts and the trusted certificates")
        .unwrap();
    assert!(asked < log.find("has changed: name servers").unwrap(), "{log}");
}

#[test]
fn a_broken_resolv_conf_is_told_and_what_it_does_not_say_stays() {
    let Some(scene) = Scene::start(&[]) else { return };
    scene.name_servers_come_up();
    scene.world.database.wait_until_empty();
    let good = format!("nameserver {}\nnameserver dns.example\n", scene.world.dns.address().ip());
    write(scene.world.path("resolv.conf"), good).unwrap();
    scene.daemon.wait_for_output("/etc/resolv.conf:2: \"dns.example\" is not the address of a name server");
    let next = scene.world.insert(&Mail::to("b@example.org"));
    scene.world.database.wait_until_empty();
    assert!(next > scene.mail && scene.server.records().delivered_to().len() == 2);
    scene.daemon.terminate();
}

/// A daemon that trusts an authority, and a server with a certificate of an issuer. On loopback credentials go in any case,
/// so the log has to say whether the certificate counts.
fn trusting(trusted: &Authority, issuer: &Authority) -> (World, SmtpServer, Mail) {
    let mut world = World::new();
    write(world.path("roots.pem"), trusted.pem()).unwrap();
    world.set("tls_trustfile", world.path("roots.pem").display());
    // So that each mail has a connection of its own.
    world.set("connection_idle", 0);
    let identity = issuer.issue(&["relay.example.net"]);
    let server = SmtpServer::start(Script::new().starttls(&identity).auth("PLAIN", "user", "password"));
    world.dns.a("relay.example.net", server.ip());
    let mail = Mail::to("a@example.org")
        .remote(&format!("user:password@relay.example.net:{}/starttls", server.port()));
    (world, server, mail)
}

#[test]
fn a_trust_file_that_is_replaced_counts_after_sighup() {
    let (old, new) = (Authority::new(), Authority::new());
    let (mut world, server, mail) = trusting(&old, &new);
    world.set("interval", 36_000);
    world.insert(&mail);
    let daemon = world.start();
    let log = daemon.wait_for_output(", unverified");
    assert!(!log.contains(", verified"), "{log}");
    world.database.wait_until_empty();
    write(world.path("roots.pem"), new.pem()).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_output(
        "asked to reread the configuration, resolv.conf, hosts and the trusted certificates",
    );
    world.insert(&mail);
    daemon.wait_for_output(", verified");
    server.wait_for_messages(2);
    world.database.wait_until_empty();
    daemon.terminate();
}

#[test]
fn a_trust_file_that_becomes_unusable_is_told_and_the_old_one_goes_on() {
    let authority = Authority::new();
    let (world, server, mail) = trusting(&authority, &authority);
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    write(world.path("roots.pem"), "nothing to trust\n").unwrap();
    // By itself, since SIGHUP is another test's.
    daemon
        .wait_for_output("holds no usable certificate; the certificates that were read before stay trusted");
    world.insert(&mail);
    daemon.wait_for_output(", verified");
    server.wait_for_messages(1);
    world.database.wait_until_empty();
    daemon.terminate();
}
