//! `destination` lines: each destination by its own rules, and relays with credentials from a file.

use crate::support::smtp_server::SmtpServer;
use crate::support::{Daemon, Mail, Script, World, tool};
use nix::sys::signal::Signal;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

const USER: &str = "mailer@example.org";
const PASSWORD: &str = "s3cret:with@signs";

/// Writes a file of credentials with this mode, and returns its path.
fn credentials(world: &World, content: &str, mode: u32) -> PathBuf {
    let path = world.path("relay.login");
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// A line that sends all mail to a server with credentials.
fn smarthost(world: &World, server: &SmtpServer) -> String {
    let path = credentials(world, &format!("{USER}:{PASSWORD}\n"), 0o600);
    format!("* via {}:{} credentials {}", server.ip(), server.port(), path.display())
}

fn check(world: &World) -> String {
    let finished = Daemon::run(&world.write_config(), &["check"]);
    assert_eq!(finished.code(), Some(1), "{}", finished.stdout);
    finished.stderr
}

#[test]
fn a_smarthost_is_one_line_and_bounces_go_there_too() {
    let mut world = World::new();
    let script = Script::new()
        .auth("PLAIN", USER, PASSWORD)
        .when(|c| c.line.contains("<nobody@").then(|| "550 5.1.1 no such user".into()));
    let server = SmtpServer::start(script);
    let line = smarthost(&world, &server);
    world.set("destination", line);
    let daemon = world.start();
    world.insert(&Mail::to("a@example.net").data("one"));
    world.insert(&Mail::to("nobody@example.org").from("s@origin.example").data("two"));
    let records = server.wait_for_messages(2);
    world.database.wait_until_empty();
    let mut to = records.delivered_to();
    to.sort_unstable();
    assert_eq!(to, ["a@example.net", "s@origin.example"], "the mail, and the bounce of the other one");
    assert!(records.connections.iter().all(|connection| connection.authenticated.is_some()));
    assert!(world.dns.asked().is_empty(), "no MX is asked for: {:?}", world.dns.asked());
    let log = daemon.terminate();
    assert!(!log.contains(PASSWORD), "the log shows the password:\n{log}");
}

#[test]
fn one_domain_is_left_out_and_mail_that_names_a_relay_goes_there() {
    let (mut world, direct) = World::with_server(Script::new());
    let (relay, named) = (SmtpServer::start(Script::new()), SmtpServer::start(Script::new()));
    world.add("destination", format!("* via {}:{}", relay.ip(), relay.port()));
    world.add("destination", "example.org via none");
    let daemon = world.start();
    world.insert(&Mail::to("a@example.org"));
    world.insert(&Mail::to("b@example.net"));
    world.insert(&Mail::to("c@example.net").remote(&format!("{}:{}", named.ip(), named.port())));
    for (server, recipient) in
        [(&direct, "a@example.org"), (&relay, "b@example.net"), (&named, "c@example.net")]
    {
        assert_eq!(server.wait_for_messages(1).delivered_to(), [recipient]);
    }
    daemon.terminate();
}

#[test]
fn ports_local_addresses_and_transactions_are_those_of_the_line() {
    let (mut world, server) = World::with_server(Script::new());
    let other = SmtpServer::start_at(Script::new(), (server.ip(), 0).into());
    world.route("example.net", &server);
    world.add("destination", format!("*  recipients 2 ports {},1", other.port()));
    world.add("destination", "mx:mx.example.net bind 127.0.0.78 messages 1");
    world.add("destination", format!("example.org bind 127.0.0.77 ports {}", server.port()));
    for recipient in
        ["a@example.org", "b@example.org", "c@example.org", "a@example.net", "b@example.net", "c@example.net"]
    {
        world.insert(&Mail::to(recipient).data("the same"));
    }
    let daemon = world.start();
    let (here, there) = (server.wait_for_messages(2), other.wait_for_messages(2));
    world.database.wait_until_empty();
    let peers = |records: &crate::support::smtp_records::Records| -> Vec<String> {
        records.connections.iter().map(|connection| connection.peer.ip().to_string()).collect()
    };
    assert_eq!(peers(&here), ["127.0.0.77"]);
    assert_eq!(peers(&there), ["127.0.0.78", "127.0.0.78"], "a connection for each message");
    for records in [here, there] {
        let mut sizes: Vec<usize> =
            records.accepted().iter().map(|message| message.recipients.len()).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 2]);
    }
    daemon.terminate();
}

#[test]
fn another_password_is_taken_by_a_reload_and_a_lost_file_leaves_all_as_it_was() {
    let mut world = World::new();
    let server = SmtpServer::start(Script::new().auth("PLAIN", USER, "second"));
    let line = smarthost(&world, &server);
    world.set("destination", line).set("retry", "* * 1s until 5d").set("verbosity", 1);
    let daemon = world.start();
    let id = world.insert(&Mail::to("a@example.net"));
    world.database.wait_for_failure(id);
    let path = credentials(&world, &format!("{USER}:second\n"), 0o640);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_output("now, it was that with other addresses or credentials");
    server.wait_for_messages(1);
    world.database.wait_until_empty();
    std::fs::remove_file(&path).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_output(&format!(
        "destination: the file of credentials {} cannot be used: it cannot be read: No such file or directory",
        path.display()
    ));
    daemon.wait_for_output("the one from before stays in force");
    world.insert(&Mail::to("b@example.net"));
    server.wait_for_messages(2);
    daemon.terminate();
}

#[test]
fn a_file_of_credentials_that_others_may_read_or_that_says_something_else_is_an_error() {
    let mut world = World::new();
    let path = world.path("relay.login").display().to_string();
    world.set("destination", format!("* via relay.example:587/starttls credentials {path}"));
    for (content, mode, reason) in [
        (
            format!("{USER}:{PASSWORD}"),
            0o644,
            "its mode 0644 lets other users read or change it: `chmod 640` it",
        ),
        (format!("{USER}:{PASSWORD}"), 0o660, "its mode 0660 lets other users read or change it"),
        (PASSWORD.replace(':', ""), 0o600, "it must have one line, USER:PASSWORD"),
    ] {
        credentials(&world, &content, mode);
        let errors = check(&world);
        let expected = format!("destination: the file of credentials {path} cannot be used: {reason}");
        assert!(errors.contains(&expected), "{expected:?} is missing in {errors}");
        assert!(!errors.contains("s3cret"), "{errors}");
    }
    world.set("destination", "* via user:s3cret@relay.example:587/starttls");
    let errors = check(&world);
    assert!(errors.contains("via: credentials do not belong in this file"), "{errors}");
    assert!(!errors.contains("s3cret"), "{errors}");
}

#[test]
fn show_names_the_relay_that_a_line_sends_mail_to() {
    let mut world = World::new();
    world.set("destination", "* via relay.example:587/starttls").add("destination", ".example.net via none");
    let line = 1 + world.config_text().lines().position(|line| line.contains("* via")).unwrap();
    for (recipient, remote) in [("a@example.org", true), ("a@b.example.net", false)] {
        let id = world.insert(&Mail::to(recipient)).to_string();
        let text = tool::output(&world, &["show", &id]);
        let domain = recipient.split_once('@').unwrap().1;
        let told = if remote {
            format!(
                "relay relay.example:587/starttls, by line {line} of the configuration (destination), instead of {domain}\n"
            )
        } else {
            format!("{domain}\n")
        };
        assert!(text.contains(&format!("  goes to      {told}")), "{text}");
    }
}
