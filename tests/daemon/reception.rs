//! The socket by which users hand over mail who may not write the database: who has sent it is known, and nobody there costs others anything.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::daemon::Finished;
use crate::support::{Daemon, PATIENCE, Script, SocketClient, World, skip, tool};

/// As many as the daemon takes messages at once.
const PLACES: usize = 10;

/// A user who owns nothing.
const NOBODY: u32 = 65534;

fn socket(world: &World) -> PathBuf {
    world.path("submit")
}

/// A world whose daemon takes messages. Those to `client.example` stay in the outbox.
fn world() -> World {
    let mut world = World::new();
    world.set("submit", socket(&world).display());
    world
}

fn connect(world: &World) -> SocketClient {
    SocketClient::connect(&socket(world))
}

/// Returns the answer to a client, after which the daemon closes.
fn answer(client: &mut SocketClient) -> Value {
    let answer = client.record().unwrap();
    assert_eq!(client.record(), None);
    answer
}

fn message(recipients: &[&str], data: &[u8]) -> Vec<u8> {
    let recipients: String = recipients.iter().map(|recipient| format!("recipient {recipient}\n")).collect();
    let envelope = format!("sender a@client.example\n{recipients}data {}\n", data.len());
    [envelope.as_bytes(), data].concat()
}

fn submitted(world: &World, octets: &[u8]) -> Value {
    let mut client = connect(world);
    client.send(octets);
    answer(&mut client)
}

/// Runs `sendmail` as a user who may read the configuration, and not write the database. `None` without root's rights, which is told.
fn sendmail_as_nobody(world: &World, words: &[&str], input: &[u8]) -> Option<Finished> {
    if !nix::unistd::Uid::effective().is_root() {
        skip("only root can become another user");
        return None;
    }
    fs::set_permissions(world.directory(), Permissions::from_mode(0o755)).unwrap();
    let program = world.path("sendmail");
    if !program.exists() {
        fs::copy(tool::PROGRAM, &program).unwrap();
    }
    let mut command = Command::new(&program);
    command.env_remove("CMAIL_MASTER_DB").arg("-C").arg(world.write_config()).args(words);
    command.uid(NOBODY).gid(NOBODY);
    Some(tool::finish(command, input))
}

#[test]
fn mail_of_a_user_who_may_not_write_the_database_is_taken_and_delivered() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("submit", socket(&world).display());
    let words = ["-v", "-f", "a@client.example", "b@example.org", "c@example.org"];
    let message = b"Subject: x\n\nbody\n";
    // Without a daemon, it is tried again later.
    let Some(refused) = sendmail_as_nobody(&world, &words, message) else { return };
    assert_eq!(refused.code(), Some(75), "{}", refused.stderr);
    assert!(refused.stderr.contains(&socket(&world).display().to_string()), "{}", refused.stderr);
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let taken = sendmail_as_nobody(&world, &words, message).unwrap();
    // The first mail was that by which the test has found the daemon ready.
    let told = "mail 2 to <b@example.org>\nmail 3 to <c@example.org>\n";
    assert_eq!((taken.code(), &*taken.stdout), (Some(0), told), "{}", taken.stderr);
    world.database.wait_until_empty();
    let log = daemon.terminate();
    assert!(log.contains("mail 2 and 1 more were submitted by user nobody"), "{log}");
    let records = server.records();
    let accepted = records.accepted();
    let data = String::from_utf8_lossy(&accepted[0].data).into_owned();
    assert!(data.contains("Subject: x\r\n\r\nbody\r\n"), "{data}");
    assert!(!socket(&world).exists());
}

/// What the daemon says is what the kernel says, not the client.
#[test]
fn the_database_has_the_mail_before_it_is_answered_and_names_the_user() {
    let world = world();
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let lock = world.database.another();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut client = connect(&world);
    client.send(message(&["b@client.example"], b"one\0two\n"));
    // Its message is whole by now, for this one is refused behind it.
    assert_eq!(submitted(&world, b"nonsense\n")["status"], 69);
    client.0.get_ref().set_nonblocking(true).unwrap();
    assert!(client.0.fill_buf().is_err());
    client.0.get_ref().set_nonblocking(false).unwrap();
    lock.execute_batch("ROLLBACK").unwrap();
    let answer = answer(&mut client);
    let ids = world.database.ids();
    assert_eq!(answer, json!({ "v": 1, "kind": "submitted", "mails": ids }));
    let row = world.database.row(ids[0]).unwrap();
    assert_eq!((row.from.as_deref(), &*row.to), (Some("a@client.example"), "b@client.example"));
    assert_eq!(row.data.as_deref(), Some(&b"one\0two\n"[..]));
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
    let submitter: String = world
        .database
        .connection
        .query_row("SELECT mail_submitter FROM outbox", [], |row| row.get(0))
        .unwrap();
    assert_eq!(submitter, format!("local:{user}"));
    daemon.terminate();
}

/// Each client is told what has become of its message, so that none is lost or submitted twice.
#[test]
fn a_daemon_that_stops_answers_all_who_wait() {
    let world = world();
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let lock = world.database.another();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let whole = message(&["b@client.example"], b"x");
    let clients: Vec<SocketClient> = (0..PLACES - 1)
        .map(|_| {
            let mut client = connect(&world);
            client.send(&whole);
            client
        })
        .collect();
    // All messages are whole by now.
    assert_eq!(submitted(&world, b"nonsense\n")["status"], 69);
    daemon.terminate();
    lock.execute_batch("ROLLBACK").unwrap();
    for mut client in clients {
        let answer = answer(&mut client);
        assert_eq!((&answer["kind"], &answer["status"]), (&json!("error"), &json!(75)), "{answer}");
    }
    assert!(world.database.ids().is_empty());
}

/// The answer comes also if the daemon is stopped in the moment in which the mail appears.
#[test]
fn what_is_committed_is_answered_before_the_end() {
    let world = world();
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let recipients = vec!["b@client.example"; 200];
    let mut client = connect(&world);
    client.send(message(&recipients, &[b'x'; 50_000]));
    while world.database.ids().is_empty() {}
    daemon.terminate();
    assert_eq!(answer(&mut client)["mails"].as_array().map(Vec::len), Some(200));
}

#[test]
fn a_client_that_is_killed_in_the_middle_leaves_nothing() {
    let world = world();
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let whole = message(&["b@client.example"], b"half");
    for end in [5, whole.len() - 5, whole.len() - 1] {
        connect(&world).send(&whole[..end]);
    }
    let taken = submitted(&world, &whole)["mails"].clone();
    assert_eq!((world.database.ids().len(), taken), (1, json!(world.database.ids())));
    daemon.terminate();
}

#[test]
fn more_than_ten_at_once_are_told_to_try_again() {
    let world = world();
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let mut clients: Vec<SocketClient> = (0..PLACES).map(|_| connect(&world)).collect();
    let busy = answer(&mut connect(&world));
    assert_eq!(busy["status"], 75);
    assert_eq!(busy["text"], "10 messages are being handed over already; try again");
    // A user does not keep the others out: they get one of that many places.
    if let Some(taken) = sendmail_as_nobody(&world, &["b@client.example"], b"x\n") {
        assert_eq!(taken.code(), Some(0), "{}", taken.stderr);
        let mut last = clients.pop().unwrap();
        assert_eq!(answer(&mut last)["text"], "other users hand over messages too; try again");
    }
    // Those who were there first are served all the same.
    let whole = message(&["b@client.example"], b"x");
    clients.iter_mut().for_each(|client| client.send(&whole));
    for mut client in clients {
        assert_eq!(answer(&mut client)["kind"], "submitted");
    }
    assert_eq!(submitted(&world, &whole)["kind"], "submitted");
    daemon.terminate();
}

#[test]
fn a_message_over_the_limit_is_refused_and_a_reload_moves_the_limit() {
    let mut world = world();
    world.set("submit_size", 1000);
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let two = message(&["b@client.example", "c@client.example"], &[b'x'; 501]);
    let refused = submitted(&world, &two);
    assert_eq!((&refused["kind"], &refused["status"]), (&json!("error"), &json!(65)));
    assert!(refused["text"].as_str().unwrap().contains("1000 octets that `submit_size` allows"), "{refused}");
    if let Some(refused) = sendmail_as_nobody(&world, &["b@client.example"], &[b'x'; 100_000]) {
        assert_eq!(refused.code(), Some(65), "{}", refused.stderr);
    }
    assert!(world.database.ids().is_empty());
    world.set("submit_size", 1002);
    assert_eq!(tool::run(&world, &["reload"]).code(), Some(0));
    let taken = submitted(&world, &two)["mails"].clone();
    assert_eq!((world.database.ids().len(), taken), (2, json!(world.database.ids())));
    daemon.terminate();
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost() {
    let world = world();
    let size = fs::metadata(world.database.path()).unwrap().len();
    let daemon = Daemon::spawn_with_file_size(size + 200_000, &world.write_config(), &["nodetach", "nodrop"]);
    daemon.wait_until_ready(&world);
    let whole = message(&["b@client.example"], &[b'x'; 1_000_000]);
    let refused = submitted(&world, &whole);
    assert_eq!((&refused["kind"], &refused["status"]), (&json!("error"), &json!(75)), "{refused}");
    assert!(world.database.ids().is_empty());
    daemon.lift_file_size_limit();
    assert_eq!(submitted(&world, &whole)["kind"], "submitted");
    daemon.terminate();
}

#[test]
fn clients_that_flood_or_do_not_read_hold_up_no_mail() {
    let (mut world, _server) = World::with_server(Script::new());
    world.set("submit", socket(&world).display());
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let _silent: Vec<SocketClient> = (0..PLACES / 2).map(|_| connect(&world)).collect();
    let path = socket(&world);
    let flood = std::thread::spawn(move || {
        let end = Instant::now() + PATIENCE / 20;
        while Instant::now() < end {
            if let Ok(mut stream) = UnixStream::connect(&path) {
                // It is refused in the middle, and reads nothing.
                let _ = stream.write_all(&[b'x'; 1_000_000]);
            }
        }
    });
    while !flood.is_finished() {
        world.insert(&crate::support::Mail::to("b@example.org"));
        world.database.wait_until_empty();
    }
    flood.join().unwrap();
    daemon.terminate();
}

#[test]
fn a_socket_that_cannot_be_made_is_an_error() {
    let mut world = world();
    fs::write(socket(&world), "of somebody").unwrap();
    for words in [&["check"][..], &["nodetach", "nodrop"]] {
        let finished = world.run(words);
        assert_eq!(finished.code(), Some(1));
        let told = format!("messages cannot be taken at {}: ", socket(&world).display());
        assert!(finished.stderr.contains(&told), "{}", finished.stderr);
    }
    assert_eq!(fs::read_to_string(socket(&world)).unwrap(), "of somebody");
    world.set("submit", "nowhere");
    let checked = world.run(&["check"]);
    assert!(checked.stderr.contains("is no path of a socket"), "{}", checked.stderr);
}
