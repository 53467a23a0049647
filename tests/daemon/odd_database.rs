//! A database in which other programs, or a bad disk, let one row not be recorded or read: it costs only itself (contract,
//! section 4).

use crate::support::{Mail, Script, SmtpServer, World};
use std::os::unix::fs::FileExt;

fn stuck(world: &World) -> Vec<i64> {
    let connection = world.database.another();
    let Ok(mut statement) = connection.prepare("SELECT mail_id FROM dispatch_stuck ORDER BY mail_id") else {
        return Vec::new();
    };
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn mails(world: &World, count: usize) -> Vec<i64> {
    (0..count)
        .map(|number| world.insert(&Mail::to(&format!("r{number}@example.org")).data(format!("{number}\n"))))
        .collect()
}

fn execute(world: &World, sql: &str) {
    world.database.another().execute_batch(sql).unwrap();
}

/// Lets the daemon find that mail `id` cannot be deleted, then starts it again, then removes what is in the way.
fn taken_mail_is_sent_once(obstacle: &str, removal: &str) {
    let (world, server) = World::with_server(Script::new());
    let ids = mails(&world, 5);
    execute(&world, &obstacle.replace("ID", &ids[2].to_string()));
    let daemon = world.start();
    world.database.wait("all others are recorded", |database| database.ids() == [ids[2]]);
    world.database.wait("it is noted", |_| stuck(&world) == [ids[2]]);
    let log = daemon.wait_for_output("it is not sent again");
    assert!(log.contains(&format!("mail {} to <r2@example.org>", ids[2])), "{log}");
    daemon.terminate();

    let again = world.start();
    let next = world.insert(&Mail::to("next@example.org"));
    world.database.wait("new mail is delivered", |database| !database.ids().contains(&next));
    again.wait_for_output("it is not sent again");
    execute(&world, removal);
    again.signal(nix::sys::signal::Signal::SIGUSR2);
    world.database.wait_until_empty();
    world.database.wait("the note goes", |_| stuck(&world).is_empty());
    again.terminate();
    assert_eq!(server.records().delivered_to().len(), 6, "each once");
}

#[test]
fn taken_mail_that_a_trigger_protects_is_noted_and_never_sent_again() {
    taken_mail_is_sent_once(
        "CREATE TRIGGER t BEFORE DELETE ON outbox WHEN old.mail_id = ID BEGIN SELECT RAISE(ABORT, 'kept'); END",
        "DROP TRIGGER t",
    );
}

#[test]
fn taken_mail_that_another_table_refers_to_is_noted_and_never_sent_again() {
    taken_mail_is_sent_once(
        "CREATE TABLE archive (mail INTEGER REFERENCES outbox(mail_id) ON DELETE RESTRICT); \
         INSERT INTO archive VALUES (ID)",
        "DROP TABLE archive",
    );
}

#[test]
fn a_failure_that_a_trigger_refuses_stops_no_other_mail() {
    let script = Script::new()
        .when(|command| command.line.starts_with("RCPT TO:<r1@").then(|| "450 4.2.0 later".into()));
    let (mut world, server) = World::with_server(script);
    world.set("retryinterval", 0);
    execute(&world, "CREATE TRIGGER t BEFORE INSERT ON faillog BEGIN SELECT RAISE(ABORT, 'no room'); END");
    let ids = mails(&world, 4);
    let daemon = world.start();
    world.database.wait("all others are recorded", |database| database.ids() == [ids[1]]);
    daemon.wait_for_output("cannot be recorded: no room");
    let next = world.insert(&Mail::to("next@example.org"));
    world.database.wait("new mail is delivered", |database| !database.ids().contains(&next));
    assert_eq!(server.records().delivered_to().len(), 4);
    daemon.terminate();
}

#[test]
fn a_bounce_that_gets_no_id_stops_nothing_and_is_not_called_a_full_disk() {
    let script =
        Script::new().when(|command| command.line.starts_with("RCPT TO:<r0@").then(|| "550 5.1.1 no".into()));
    let (world, _server) = World::with_server(script);
    let ids = mails(&world, 3);
    execute(
        &world,
        "INSERT INTO outbox (mail_id, mail_envelopefrom, mail_envelopeto, mail_data) \
         VALUES (9223372036854775807, 's@example.org', 'last@example.org', 'x')",
    );
    let daemon = world.start();
    world.database.wait("all others are recorded", |database| database.ids() == [ids[0]]);
    let log = daemon.wait_for_output("ids of the table outbox are used up");
    assert!(!log.contains("disk is full; make room"), "{log}");
    daemon.terminate();
}

#[test]
fn mail_on_a_damaged_page_stops_no_other_mail_of_its_destination() {
    let mut world = World::in_journal_mode("delete");
    let server = SmtpServer::start(Script::new());
    world.set("portprio", server.port());
    world.route("example.org", &server);
    let ids: Vec<i64> = (0..3_u8)
        .map(|number| {
            let line = [vec![b'a' + number; 900], b"\n".to_vec()].concat();
            world.insert(&Mail::to(&format!("r{number}@example.org")).data(line.repeat(50)))
        })
        .collect();
    damage(&world, b'b');
    let daemon = world.start();
    world.database.wait("all others are recorded", |database| {
        let connection = database.another();
        let mut statement = connection.prepare("SELECT mail_id FROM outbox").unwrap();
        let left: Vec<i64> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        left == [ids[1]]
    });
    let log = daemon.wait_for_output("cannot be read");
    assert!(log.contains(&format!("mail {} to <r1@example.org>", ids[1])), "{log}");
    assert_eq!(server.records().delivered_to(), ["r0@example.org", "r2@example.org"]);
    daemon.terminate();
}

/// Overwrites the first page that holds nothing but a part of a mail of this octet, and so breaks the chain that it is in.
fn damage(world: &World, octet: u8) {
    let path = world.database.path();
    let octets = std::fs::read(path).unwrap();
    let page_octets = usize::from(u16::from_be_bytes([octets[16], octets[17]]));
    let number = octets
        .chunks(page_octets)
        .position(|page| page[4..].iter().all(|found| *found == octet || *found == b'\n'))
        .unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&vec![0xff; page_octets], (number * page_octets) as u64).unwrap();
}

#[test]
fn a_damaged_page_of_the_outbox_costs_only_the_mail_on_it_and_is_named_once() {
    let mut world = World::in_journal_mode("delete");
    let server = SmtpServer::start(Script::new());
    world.set("portprio", server.port());
    world.route("example.org", &server);
    let mails: Vec<Mail> = (0..100)
        .map(|number| {
            Mail::to(&format!("r{number}@example.org")).data(format!("{number}\n{}\n", "x".repeat(400)))
        })
        .collect();
    let ids = world.database.insert_all(&mails);
    let page = damage_leaf_with(&world, "r50@example.org");
    let lost: Vec<i64> = ids
        .iter()
        .enumerate()
        .filter(|(number, _)| contains(&page, &format!("r{number}@example.org")))
        .map(|(_, id)| *id)
        .collect();
    assert!((2..50).contains(&lost.len()), "{lost:?}");
    let daemon = world.start();
    let delivered = ids.len() - lost.len();
    server.wait("all others are sent", |records| records.accepted().len() == delivered);
    let (first, last) = (lost[0], lost[lost.len() - 1]);
    let named = format!("{} mails with ids from {first} to {last} cannot be read", lost.len());
    let log = daemon.wait_for_output(&named);
    assert!(log.contains("PRAGMA integrity_check") && log.contains("trying again in 1 min"), "{log}");
    // What comes later is seen, and with it nothing new is said.
    for number in 0..3 {
        world.insert(&Mail::to(&format!("later{number}@example.org")));
        server.wait("it is sent", |records| records.accepted().len() == delivered + number + 1);
    }
    let log = daemon.terminate();
    assert_eq!(log.matches("cannot be read").count(), 1, "{log}");
}

fn contains(page: &[u8], text: &str) -> bool {
    page.windows(text.len()).any(|found| found == text.as_bytes())
}

/// Overwrites the leaf of a table in which a text stands; returns what it was.
fn damage_leaf_with(world: &World, text: &str) -> Vec<u8> {
    const TABLE_LEAF: u8 = 13;
    let path = world.database.path();
    let octets = std::fs::read(path).unwrap();
    let page_octets = usize::from(u16::from_be_bytes([octets[16], octets[17]]));
    let mut pages = octets.chunks(page_octets).enumerate();
    let (number, page) = pages.find(|(_, page)| page[0] == TABLE_LEAF && contains(page, text)).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&vec![0xff; page_octets], (number * page_octets) as u64).unwrap();
    page.to_vec()
}
