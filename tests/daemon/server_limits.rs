//! The limits that servers announce (RFC 9422).

use crate::support::smtp_server::SmtpServer;
use crate::support::{Mail, Script, World};

#[test]
fn what_a_server_announces_as_its_limits_is_kept() {
    let mut world = World::new();
    let script =
        Script::new().keywords(["PIPELINING", "LIMITS RCPTMAX=2 MAILMAX=3 RCPTDOMAINMAX=1 FUTURE=x"]);
    let server = SmtpServer::start(script);
    world.set("destination", format!("* via {}:{}", server.ip(), server.port()));
    world.set("destination_concurrency", 1);
    for number in 0..5 {
        world.insert(&Mail::to(&format!("x{number}@example.net")).data("the same"));
    }
    for number in 0..4 {
        world.insert(&Mail::to("y@example.net").data(format!("{number}")));
    }
    world.insert(&Mail::to("z@elsewhere.example").data("the same"));
    let _daemon = world.start();
    world.database.wait_until_empty();
    let records = server.records();
    assert_eq!(records.delivered_to().len(), 10);
    for message in records.accepted() {
        assert!(message.recipients.len() <= 2, "{message:?}");
    }
    for connection in &records.connections {
        assert!(connection.count("MAIL") <= 3, "{:?}", connection.commands());
        let is_elsewhere = |line: &String| line.contains("@elsewhere.example");
        let recipients: Vec<String> =
            connection.commands().into_iter().filter(|line| line.starts_with("RCPT")).collect();
        let elsewhere = recipients.iter().filter(|line| is_elsewhere(line)).count();
        assert!([0, recipients.len()].contains(&elsewhere), "{recipients:?}");
    }
    assert_eq!(records.count("RCPT"), 10, "no recipient is asked for in vain");
}

#[test]
fn limits_that_make_no_sense_are_ignored() {
    let script = Script::new().keywords(["LIMITS RCPTMAX=0 MAILMAX=-1 RCPTDOMAINMAX=many"]);
    let (world, server) = World::with_server(script);
    for number in 0..5 {
        world.insert(&Mail::to(&format!("x{number}@example.org")).data("the same"));
    }
    let _daemon = world.start();
    world.database.wait_until_empty();
    let sizes: Vec<usize> =
        server.records().accepted().iter().map(|message| message.recipients.len()).collect();
    assert_eq!(sizes, [5]);
}
