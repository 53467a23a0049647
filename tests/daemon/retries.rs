//! Retry rules: the destination and the last failure of a mail decide when it is tried again, and its age when it is given up.

use crate::support::{Action, Mail, Script, SmtpServer, World, tool};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn the_first_line_about_a_mail_decides_and_the_number_of_retries_does_not_count_then() {
    let (mut world, server) = World::with_server(Script::new().always("RCPT", "450 4.2.0 later"));
    world.route("sub.example.net", &server);
    world.route("example.com", &server);
    world.set("retries", 1).set("retryinterval", "1h");
    world.add("retry", "example.org recipient 1s until 3s");
    world.add("retry", ".example.net 4.2 1h until 5d");
    world.add("retry", "example.com connect 1s until 1s");
    let patient = world.insert(&Mail::to("patient@sub.example.net"));
    let others = ["busy@example.org", "given-up@example.com"].map(|to| world.insert(&Mail::to(to)));
    let daemon = world.start();
    world
        .database
        .wait("the other two are given up", |database| others.iter().all(|id| database.row(*id).is_none()));
    let records = server.records();
    let attempts = |recipient: &str| {
        let lines = records.connections.iter().flat_map(|connection| &connection.lines);
        let command = format!("RCPT TO:<{recipient}>");
        lines.filter(|line| line.text.starts_with(command.as_bytes())).map(|line| line.at).collect::<Vec<_>>()
    };
    assert_eq!(attempts("given-up@example.com").len(), 1, "no line is about it, and one failure is enough");
    let busy = attempts("busy@example.org");
    assert!(busy.len() >= 2, "it was tried again in spite of \"retries 1\"");
    // The rule counts whole seconds.
    assert!(
        (*busy.last().unwrap() - busy[0]).as_millis() >= 1900,
        "it was tried for as long as the rule says"
    );
    assert_eq!(attempts("patient@sub.example.net").len(), 1);
    assert_eq!(world.database.failures_of(patient).len(), 1);
    let log = daemon.terminate();
    // All who look say the same: the log, and the ledger.
    let line = |of: &str| {
        let config = world.config_text();
        config.lines().position(|line| line.contains(of)).unwrap() + 1
    };
    let (busy_line, patient_line) = (line("retry example.org"), line("retry .example.net"));
    let told = format!(" why=retry line {patient_line})\n");
    let patient =
        log.lines().find(|line| line.contains("<patient@sub.example.net> failed temporarily")).unwrap();
    assert!(patient.contains(" next=20") && format!("{patient}\n").ends_with(&told), "{patient}");
    let busy = log.lines().rfind(|line| line.contains("<busy@example.org> failed temporarily")).unwrap();
    assert!(busy.ends_with(&format!(" next=never why=retry line {busy_line})")), "{busy}");
    let without =
        log.lines().find(|line| line.contains("<given-up@example.com> failed temporarily")).unwrap();
    assert!(without.ends_with(" next=never)"), "{without}");
    let history = |result: &str| tool::records(&world, &["history", "--result", result]);
    let expired = history("expired");
    assert_eq!(expired.len(), 1);
    assert_eq!(
        (&expired[0]["mail_id"], &expired[0]["why"]),
        (&json!(others[0]), &json!(format!("retry line {busy_line}")))
    );
    assert_eq!(history("bounced")[0]["mail_id"], json!(others[1]));
    let deferred = history("deferred");
    let of_patient = deferred.iter().find(|entry| entry["recipient"] == "patient@sub.example.net").unwrap();
    assert_eq!(of_patient["why"], json!(format!("retry line {patient_line}")));
}

#[test]
fn the_kind_of_a_failure_outlasts_a_restart() {
    // The faillog has the same words for a host that closes its connection and for one that cannot be connected to.
    let (mut world, server) = World::with_server(Script::new().always("GREETING", Action::Close));
    world.add("retry", "* lost 1h until 5d").add("retry", "* * 1s until 1s");
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_for_failure(id);
    daemon.terminate();
    let tried = server.records().connections.len();
    let other = SmtpServer::start(Script::new());
    world.route("example.net", &other);
    world.set("portprio", other.port());
    world.insert(&Mail::to("b@example.net"));
    let daemon = world.start();
    other.wait_for_messages(1);
    daemon.terminate();
    assert_eq!(world.database.failures_of(id).len(), 1);
    assert_eq!(server.records().connections.len(), tried);
    assert_eq!(world.database.bounces().len(), 0);
}

#[test]
fn another_rule_makes_waiting_mail_due() {
    let (mut world, server) = World::with_server(Script::new().once("RCPT", "450 4.2.0 later"));
    world.set("retry", "* * 1h until 5d");
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_for_failure(id);
    world.set("retry", "* * 1s until 5d");
    world.write_config();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_output("retry is * * 1s until 5d now, it was * * 1h until 5d");
    server.wait_for_messages(1);
    daemon.terminate();
}

#[test]
fn the_sender_of_late_mail_is_told_once_and_the_mail_is_still_tried() {
    let script = Script::new().once("RCPT", "450 4.2.0 later").once("RCPT", "450 4.2.0 later");
    let (mut world, server) = World::with_server(script);
    let origin = SmtpServer::start(Script::new());
    world.set("portprio", format!("{} {}", server.port(), origin.port()));
    world.route("origin.example", &origin);
    world.set("retry", "* * 1s until 5d").set("delay_warning", "4h 24h").set("verbosity", 1);
    let mail = Mail::to("a@example.org").from("s@origin.example").data("Subject: hello\n\nthe text");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let id = world.insert(&Mail { submission: Some(now.cast_signed() - 5 * 3600), ..mail });
    let daemon = world.start();
    server.wait_for_messages(1);
    origin.wait_for_messages(1);
    world.database.wait_until_empty();
    let records = origin.records();
    let warning = String::from_utf8_lossy(&records.accepted()[0].data).into_owned();
    for part in ["Action: delayed", "Will-Retry-Until: ", "450 4.2.0 later", "Subject: hello"] {
        assert!(warning.contains(part), "{part:?} is missing in {warning}");
    }
    assert!(!warning.contains("the text"));
    assert_eq!(records.accepted().len(), 1, "two attempts have failed after four hours, and one was told of");
    daemon.wait_for_output(&format!(
        "mail {id} to <a@example.org> is late, which mail {} tells its sender",
        id + 1
    ));
    daemon.terminate();
}

#[test]
fn the_age_of_mail_counts_from_its_release_by_an_order_and_by_the_end_of_a_line() {
    let (mut world, server) = World::with_server(Script::new().always("RCPT", "450 4.2.0 later"));
    world.set("interval", 1).set("retry", "* * 1s until 4s").set("hold", "sender:held@example.org ask first");
    let by_order = world.insert(&Mail::to("order@example.org"));
    let by_line = world.insert(&Mail::to("line@example.org").from("held@example.org"));
    let old = "UPDATE outbox SET mail_submission = mail_submission - 1000000";
    world.database.another().execute(old, []).unwrap();
    let daemon = world.start();
    daemon.wait_for_output(&format!("mail {by_line} is held by line "));
    daemon.terminate();
    tool::output(&world, &["hold", &by_order.to_string()]);
    // One is released while no daemon runs, the other by a start with another file.
    tool::output(&world, &["release", &by_order.to_string()]);
    world.unset("hold");
    let daemon = world.start();
    daemon.wait_for_output("1 mail is released");
    world.database.wait("both are given up", |database| {
        [by_order, by_line].iter().all(|id| database.row(*id).is_none())
    });
    daemon.terminate();
    let records = server.records();
    let lines = || records.connections.iter().flat_map(|connection| &connection.lines);
    for recipient in ["order", "line"] {
        let command = format!("RCPT TO:<{recipient}@example.org>");
        let attempts = lines().filter(|line| line.text.starts_with(command.as_bytes())).count();
        assert!(attempts > 2, "{recipient}: {attempts} attempts: it is given up as if it had not been held");
    }
}
