//! Lines of the configuration that hold mail.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Daemon, Mail, Script, SmtpServer, World, tool};

const LINE: &str = "(hold example.org): moved house, ask first";

/// A world in which mail to example.org and example.net goes to a server, and that to example.org is held.
fn world() -> (World, SmtpServer) {
    let (mut world, server) = World::with_server(Script::new());
    world.route("example.net", &server);
    world.set("interval", 1).set("hold", "example.org moved house, ask first");
    (world, server)
}

fn reload(world: &World, daemon: &Daemon, log: &str) {
    world.write_config();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_output(log);
}

#[test]
fn mail_is_held_as_long_as_a_line_says_so_and_everything_names_the_line() {
    let (mut world, server) = world();
    world.set("control", world.path("control").display());
    let early = world.insert(&Mail::to("a@example.org").data("early"));
    world.database.insert_failure(early, "550 no", true, 100_000);
    let daemon = world.start();
    daemon.wait_for_output(&format!("mail {early} is held by line "));
    let late = world.insert(&Mail::to("b@example.org").data("late"));
    let other = world.insert(&Mail::to("c@example.net").data("other"));
    daemon.wait_for_output(&format!("mail {late} is held by line "));
    world.database.wait("other mail is delivered", |database| database.row(other).is_none());
    let number = world.config_text().lines().position(|line| line.starts_with("hold ")).unwrap() + 1;
    let named = format!("line {number} of the configuration {LINE}");
    let listed = tool::records(&world, &["list", "--place", "held"]);
    assert_eq!(listed.len(), 2);
    assert_eq!((&listed[1]["held_by"], &listed[1]["hold_line"]), (&json!(named), &json!(number)));
    assert!(tool::output(&world, &["list"]).contains(&format!("held by {named}")));
    assert!(tool::output(&world, &["show", &late.to_string()]).contains(&format!("held by {named}; it is")));
    let hold = &tool::records(&world, &["holds"])[0];
    assert_eq!((&hold["line"], &hold["mails"], &hold["rule"]), (&json!(number), &json!(2), &json!(true)));
    assert_eq!((&hold["hold_id"], &hold["scope"]), (&json!(null), &json!("example.org")));
    assert_eq!(tool::output(&world, &["holds"]), format!("{named}: 2 mails, and what comes later\n"));
    assert!(tool::output(&world, &["status"]).contains(&format!("held          2 by {named}")));
    let explained = tool::output(&world, &["explain", &late.to_string()]);
    assert!(explained.contains(&format!("it is held by {named}")), "{explained}");
    assert!(tool::output(&world, &["explain", "example.org"]).contains(&format!("2 by {named}")));
    let retried = tool::run(&world, &["retry", "--domain", "example.org", "--yes"]);
    assert!(
        retried.stdout.contains("0 mails are tried now; 2 mails are held: release them first"),
        "{} {}",
        retried.stdout,
        retried.stderr
    );
    world.unset("hold");
    reload(&world, &daemon, "hold is none now, it was example.org moved house, ask first");
    world.database.wait("the late one is delivered", |database| database.row(late).is_none());
    world.database.wait("the failed one is bounced", |database| database.row(early).is_none());
    daemon.terminate();
    assert_eq!(server.records().messages.len(), 2, "the one without a line, and the one that was released");
}

#[test]
fn a_line_that_is_added_holds_what_waits_also_for_tools_without_a_daemon() {
    let (mut world, server) = World::with_server(Script::new().always("RCPT", "450 4.2.0 later"));
    world.set("retryinterval", "1s").set("retries", 1000).set("interval", 1);
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_for_failure(id);
    world.set("hold", "sender:<> bounces wait").add("hold", ".org is looked into");
    reload(&world, &daemon, &format!("mail {id} is held by line "));
    let tried = server.records().count("RCPT");
    let other = world.insert(&Mail::to("b@example.org"));
    daemon.wait_for_output(&format!("mail {other} is held by line "));
    daemon.terminate();
    assert_eq!(server.records().count("RCPT"), tried);
    assert!(tool::output(&world, &["show", &id.to_string()]).contains("(hold .org): is looked into"));
    let released = tool::output(&world, &["release", &id.to_string()]);
    assert_eq!(released, "order 1: 1 mail is released\n");
    let exempt = "; no hold line holds it, because an order has released this mail";
    assert!(tool::output(&world, &["show", &id.to_string()]).contains(exempt));
    assert!(tool::run(&world, &["explain", &id.to_string()]).stdout.contains(exempt));
    assert!(!tool::output(&world, &["show", &other.to_string()]).contains(exempt));
    // It is written down, so it outlasts the tool, and the line stands for other mail.
    let daemon = world.start();
    world.database.wait("it is tried again", |database| database.failures_of(id).len() > 1);
    daemon.terminate();
    assert_eq!(world.database.failures_of(other).len(), 0);
    assert_eq!(tool::records(&world, &["list", "--place", "held"])[0]["mail_id"], json!(other));
}

#[test]
fn check_prints_the_lines_and_says_what_is_wrong_with_others() {
    let mut world = World::new();
    world.set("hold", "sender:news@example.org  until the list   is clean").add("hold", "* a # b");
    let checked = world.run(&["check"]);
    assert!(
        checked.stdout.contains("sender:news@example.org until the list is clean\n"),
        "{}",
        checked.stdout
    );
    assert!(checked.stdout.contains("* a\n"), "{}", checked.stdout);
    world.set("hold", "mx:*.example.net because");
    let checked = world.run(&["check"]);
    assert!(checked.stderr.contains("the hosts of a domain are looked up only when its mail is tried"));
    world.set("hold", "example.org");
    let checked = world.run(&["check"]);
    assert!(checked.stderr.contains("hold: a hold line is MAIL REASON"), "{}", checked.stderr);
}
