//! Mail that programs hand over by `sendmail`, which is the tool by another name.

use crate::support::daemon::Finished;
use crate::support::{Mail, Script, World, skip, tool};
use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

/// The tool, called by another name.
fn called(world: &World, name: &str) -> PathBuf {
    let path = world.path(name);
    if !path.exists() {
        symlink(tool::PROGRAM, &path).unwrap();
    }
    path
}

/// Runs `sendmail` with these words and this standard input.
fn sendmail(world: &World, words: &[&str], input: &[u8]) -> Finished {
    let mut command = Command::new(called(world, "sendmail"));
    command.env_remove("CMAIL_MASTER_DB").arg("-C").arg(world.write_config()).args(words);
    tool::finish(command, input)
}

/// Returns sender, recipient and data of all mail.
fn outbox(world: &World) -> Vec<(Option<String>, String, String)> {
    let text = |data: Option<Vec<u8>>| String::from_utf8_lossy(&data.unwrap_or_default()).into_owned();
    world.database.outbox().into_iter().map(|row| (row.from, row.to, text(row.data))).collect()
}

fn submitters(world: &World) -> Vec<String> {
    let mut statement = world
        .database
        .connection
        .prepare("SELECT mail_submitter FROM outbox WHERE mail_submitter NOT NULL")
        .unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn user() -> String {
    nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name
}

/// From the command line of a script to the server.
#[test]
fn a_message_is_taken_and_delivered() {
    let (world, server) = World::with_server(Script::new());
    let daemon = world.start();
    let finished =
        sendmail(&world, &["-i", "-f", "a@client.example", "b@example.org"], b"Subject: x\n\n.\nbody\n");
    assert_eq!((finished.code(), &*finished.stdout, &*finished.stderr), (Some(0), "", ""));
    world.database.wait_until_empty();
    daemon.terminate();
    let records = server.records();
    let accepted = records.accepted();
    assert_eq!(accepted.len(), 1);
    let data = String::from_utf8_lossy(&accepted[0].data).into_owned();
    for part in ["Date: ", "Message-ID: <", "From: ", "Subject: x\r\n\r\n", "\r\nbody\r\n"] {
        assert!(data.contains(part), "{part}: {data}");
    }
}

/// The recipients of the header, and not to be seen in it.
#[test]
fn recipients_are_read_of_the_header() {
    let world = World::new();
    let message = b"From: a@client.example\nTo: \"B, b\" <b@example.org>, root\nCc: c@example.org (b@example.org)\nBcc: d@example.net\n\
        Subject: x\nDate: y\nMessage-ID: <z>\nReturn-Path: <q@example.org>\n\nbody\n";
    let finished = sendmail(&world, &["-t", "-oi", "B@EXAMPLE.org", "e@example.net"], message);
    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
    let mails = outbox(&world);
    let recipients: Vec<&str> = mails.iter().map(|(_, recipient, _)| &**recipient).collect();
    let expected = [
        "B@EXAMPLE.org",
        "e@example.net",
        "b@example.org",
        "root@client.example",
        "c@example.org",
        "d@example.net",
    ];
    assert_eq!(recipients, expected);
    let data = "From: a@client.example\r\nTo: \"B, b\" <b@example.org>, root@client.example\r\nCc: c@example.org (b@example.org)\r\n\
        Subject: x\r\nDate: y\r\nMessage-ID: <z>\r\n\r\nbody\r\n";
    for (sender, _, found) in &mails {
        assert_eq!((sender.as_deref(), &**found), (Some(&*format!("{}@client.example", user())), data));
    }
    assert_eq!(submitters(&world), vec![format!("local:{}", user()); expected.len()]);
}

#[test]
fn the_sender_may_be_null() {
    let world = World::new();
    for null in ["<>", ""] {
        assert_eq!(sendmail(&world, &["-f", null, "b@example.org"], b"x\n").code(), Some(0));
    }
    assert!(outbox(&world).iter().all(|(sender, ..)| sender.is_none()));
}

/// A script guards what it was given by `--`.
#[test]
fn nothing_behind_two_hyphens_is_an_option() {
    let world = World::new();
    for words in
        [&["submit", "--", "-bp"][..], &["submit", "-i", "--", "-bp"], &["submit", "--", "-t", "--help"]]
    {
        let mut command = tool::command();
        command.arg("--config").arg(world.write_config()).args(words);
        let finished = tool::finish(command, b"x\n");
        assert_eq!((finished.code(), &*finished.stdout), (Some(0), ""), "{words:?}: {}", finished.stderr);
    }
    let recipients: Vec<String> = outbox(&world).into_iter().map(|(_, recipient, _)| recipient).collect();
    assert_eq!(recipients, ["-bp", "-bp", "-t", "--help"].map(|name| format!("{name}@client.example")));
}

/// As cron of Debian calls it, with the header that it writes. A server would refuse an address without a domain.
#[test]
fn cron_sends_by_it() {
    let world = World::new();
    let message = b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@host> job\n\none\n.\ntwo\n";
    let finished = sendmail(&world, &["-i", "-FCronDaemon", "-B8BITMIME", "-oem", "root"], message);
    assert_eq!((finished.code(), &*finished.stderr), (Some(0), ""));
    let [(_, recipient, data)] = &outbox(&world)[..] else { panic!("{:?}", outbox(&world)) };
    assert_eq!(recipient, "root@client.example");
    assert!(
        data.contains("From: root@client.example (Cron Daemon)\r\nTo: root@client.example\r\n"),
        "{data}"
    );
    assert!(data.ends_with("\r\n\r\none\r\n.\r\ntwo\r\n"), "{data}");
}

/// What is wrong is told by the status on which callers act, and nothing is stored of it.
#[test]
fn each_refusal_has_its_status() {
    let world = World::new();
    for (words, input, status) in [
        (&["-bs"][..], "", 64),
        (&["-bd"], "", 64),
        (&["-y", "a@example.org"], "x\n", 64),
        (&[], "x\n", 65),
        (&["-t"], "Subject: x\n\nx\n", 65),
        (&["-t"], "no header\n", 65),
        (&["a b"], "x\n", 65),
        (&["a@example.org", "b@a..b"], "x\n", 65),
        (&["-f", "a b", "a@example.org"], "x\n", 65),
        (&["-t"], "To: a@example.org, b c\n\nx\n", 65),
    ] {
        let finished = sendmail(&world, words, input.as_bytes());
        assert_eq!(
            (finished.code(), &*finished.stdout),
            (Some(status), ""),
            "{words:?}: {}",
            finished.stderr
        );
        assert_eq!(finished.stderr.lines().count(), 1, "{words:?}: {}", finished.stderr);
    }
    let elsewhere = |config: &str| {
        let mut command = Command::new(called(&world, "sendmail"));
        command.env_remove("CMAIL_MASTER_DB").args(["-C", config, "a@example.org"]);
        tool::finish(command, b"x\n").code()
    };
    assert_eq!(elsewhere("/nonexistent.conf"), Some(78));
    let wrong = world.path("wrong.conf");
    std::fs::write(&wrong, format!("database {}\n", world.path("missing.db3").display())).unwrap();
    assert_eq!(elsewhere(wrong.to_str().unwrap()), Some(78));
    world.database.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let busy = sendmail(&world, &["a@example.org"], b"x\n");
    world.database.connection.execute_batch("ROLLBACK").unwrap();
    assert_eq!(busy.code(), Some(75), "{}", busy.stderr);
    world
        .database
        .connection
        .execute_batch("CREATE TRIGGER t BEFORE INSERT ON outbox WHEN new.mail_envelopeto LIKE 'c@%' BEGIN SELECT raise(FAIL, 'never'); END")
        .unwrap();
    // All recipients or none.
    assert_eq!(sendmail(&world, &["a@example.org", "c@example.org"], b"x\n").code(), Some(69));
    assert_eq!(outbox(&world), []);
}

/// `mailq` and `sendmail -bp` are `list`; `-q` leaves the work to the daemon.
#[test]
fn other_names_list_the_queue() {
    let world = World::new();
    world.insert(&Mail::to("a@example.org"));
    let listed = sendmail(&world, &["-bp"], b"");
    assert!(listed.stdout.contains("a@example.org"), "{}{}", listed.stdout, listed.stderr);
    let mut mailq = Command::new(called(&world, "mailq"));
    mailq.env("CMAIL_MASTER_DB", world.database.path()).arg("--config").arg(world.write_config());
    let listed = tool::finish(mailq, b"");
    assert!(listed.stdout.contains("a@example.org"), "{}{}", listed.stdout, listed.stderr);
    assert_eq!(sendmail(&world, &["-q"], b"").code(), Some(0));
    let help = sendmail(&world, &["--help"], b"");
    assert!(
        help.code() == Some(0) && help.stdout.contains("-t: recipients are also in the header"),
        "{}",
        help.stdout
    );
    assert_eq!(outbox(&world).len(), 1);
}

/// That nothing waits is no failure of who asks.
#[test]
fn an_empty_queue_is_told() {
    let world = World::new();
    let mailq = |words: &[&str]| {
        let mut mailq = Command::new(called(&world, "mailq"));
        // An empty variable counts as unset.
        mailq.env(
            "CMAIL_MASTER_DB",
            if words.is_empty() { world.database.path().as_os_str() } else { OsStr::new("") },
        );
        mailq.args(words);
        tool::finish(mailq, b"")
    };
    let config = world.write_config();
    let config = config.to_str().unwrap();
    for finished in [sendmail(&world, &["-bp"], b""), mailq(&[]), mailq(&["--config", config])] {
        assert_eq!(
            (finished.code(), &*finished.stdout),
            (Some(0), "the queue is empty\n"),
            "{}",
            finished.stderr
        );
    }
    // Of selected mail that is not known.
    let none = mailq(&["--config", config, "--domain", "example.org"]);
    assert_eq!((none.code(), &*none.stdout), (Some(2), ""), "{}", none.stderr);
}

/// What is taken at once keeps the daemon waiting, so that it is limited.
#[test]
fn a_message_for_too_many_is_refused() {
    let world = World::new();
    let recipients: Vec<String> = (0..1000).map(|number| format!("r{number}@example.org")).collect();
    let words: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let finished = sendmail(&world, &words, &b"x\n".repeat(250_000));
    assert_eq!(finished.code(), Some(65), "{}", finished.stderr);
    assert!(finished.stderr.contains("for 1000 recipients"), "{}", finished.stderr);
    assert_eq!(outbox(&world), []);
    assert_eq!(sendmail(&world, &words, b"x\n").code(), Some(0));
    assert_eq!(outbox(&world).len(), 1000);
}

/// Ten programs at once, beside the daemon, lose nothing.
#[test]
fn ten_writers_at_once_lose_nothing() {
    const WRITERS: usize = 10;
    const MESSAGES: usize = 5;
    let (world, server) = World::with_server(Script::new());
    let daemon = world.start();
    let (program, config) = (called(&world, "sendmail"), world.write_config());
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (program, config) = (&program, &config);
            scope.spawn(move || {
                for message in 0..MESSAGES {
                    let mut command = Command::new(program);
                    command.arg("-C").arg(config).arg(format!("w{writer}m{message}@example.org"));
                    let finished =
                        tool::finish(command, format!("Subject: {writer} {message}\n\nx\n").as_bytes());
                    assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
                }
            });
        }
    });
    world.database.wait_until_empty();
    daemon.terminate();
    let mut recipients = server.records().delivered_to();
    recipients.sort();
    recipients.dedup();
    assert_eq!(recipients.len(), WRITERS * MESSAGES);
}

/// Runs a program that sends mail by `sendmail`, and returns the only message that it has sent.
fn sent_by(
    world: &World,
    program: &str,
    words: &[&OsStr],
    input: &[u8],
) -> Option<(Option<String>, String, String)> {
    if Command::new("sh")
        .args(["-c", &format!("command -v {program} >/dev/null")])
        .status()
        .is_ok_and(|found| !found.success())
    {
        skip(&format!("there is no {program}"));
        return None;
    }
    let mut command = Command::new(program);
    command
        .env("CMAIL_MASTER_DB", world.database.path())
        .env("HOME", world.directory())
        .envs([("GIT_COMMITTER_NAME", "C"), ("GIT_COMMITTER_EMAIL", "c@client.example")])
        .envs([("GIT_AUTHOR_NAME", "A"), ("GIT_AUTHOR_EMAIL", "a@client.example")])
        .current_dir(world.directory())
        .args(words);
    let finished = tool::finish(command, input);
    assert_eq!(finished.code(), Some(0), "{}{}", finished.stdout, finished.stderr);
    let mut mails = outbox(world);
    assert_eq!(mails.len(), 1, "{mails:?}");
    mails.pop()
}

/// A command that runs `sendmail` with the configuration of this world.
fn sendmail_command(world: &World) -> String {
    format!("{} -C {}", called(world, "sendmail").display(), world.write_config().display())
}

#[test]
fn python_sends_by_it() {
    let world = World::new();
    let script = "import subprocess, sys
from email.message import EmailMessage
message = EmailMessage()
message['From'], message['To'], message['Subject'] = 'a@client.example', 'B <b@example.org>', 'Grüße'
message.set_content('body')
subprocess.run(sys.argv[1].split() + ['-t', '-oi'], input=bytes(message), check=True)
";
    let sendmail = sendmail_command(&world);
    let words = ["-c", script, &sendmail].map(OsStr::new);
    let Some((_, recipient, data)) = sent_by(&world, "python3", &words, b"") else { return };
    assert_eq!(recipient, "b@example.org");
    assert!(data.contains("From: a@client.example\r\n") && data.ends_with("\r\n\r\nbody\r\n"), "{data}");
}

#[test]
fn php_sends_by_it() {
    let world = World::new();
    let path = format!("sendmail_path={} -t -i", sendmail_command(&world));
    let script = "mail('b@example.org', 'x', \"one\\n.\\ntwo\", 'Bcc: c@example.org', '-fa@client.example') || exit(1);";
    let words = ["-d", &path, "-r", script].map(OsStr::new);
    if Command::new("php").arg("-v").output().is_err() {
        return skip("there is no php");
    }
    let mut command = Command::new("php");
    command.args(words);
    let finished = tool::finish(command, b"");
    assert_eq!(finished.code(), Some(0), "{}{}", finished.stdout, finished.stderr);
    let mails = outbox(&world);
    let recipients: Vec<&str> = mails.iter().map(|(_, recipient, _)| &**recipient).collect();
    assert_eq!(recipients, ["b@example.org", "c@example.org"]);
    assert_eq!(mails[0].0.as_deref(), Some("a@client.example"));
    assert!(
        mails[0].2.ends_with("\r\n\r\none\r\n.\r\ntwo\r\n") && !mails[0].2.contains("Bcc"),
        "{}",
        mails[0].2
    );
}

#[test]
fn git_sends_by_it() {
    let world = World::new();
    let patch = world.path("0001-x.patch");
    std::fs::write(
        &patch,
        "From 1234567890123456789012345678901234567890 Mon Sep 17 00:00:00 2001\nFrom: A <a@client.example>\n\
        Date: Mon, 30 Nov 2026 12:00:00 +0000\nSubject: [PATCH] x\n\n---\n",
    )
    .unwrap();
    if !Command::new("git").args(["send-email", "-h"]).output().is_ok_and(|output| {
        String::from_utf8_lossy(&output.stderr).contains("--smtp-server")
            || String::from_utf8_lossy(&output.stdout).contains("--smtp-server")
    }) {
        return skip("there is no git send-email");
    }
    let sendmail = format!("--sendmail-cmd={}", sendmail_command(&world));
    let words = [
        "send-email",
        "--quiet",
        "--confirm=never",
        "--from=a@client.example",
        "--to=b@example.org",
        "--suppress-cc=all",
        &sendmail,
        patch.to_str().unwrap(),
    ];
    let Some((_, recipient, data)) = sent_by(&world, "git", &words.map(OsStr::new), b"") else { return };
    assert_eq!(recipient, "b@example.org");
    assert!(data.contains("Subject: [PATCH] x\r\n"), "{data}");
}

/// The command `mail` of Debian's bsd-mailx, which reads the path of sendmail of its configuration.
#[test]
fn mailx_sends_by_it() {
    let world = World::new();
    let wrapper = world.path("wrapper");
    std::fs::write(&wrapper, format!("#!/bin/sh\nexec {} \"$@\"\n", sendmail_command(&world))).unwrap();
    std::fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(world.path(".mailrc"), format!("set sendmail={}\n", wrapper.display())).unwrap();
    let words = ["-s", "x", "b@example.org"].map(OsStr::new);
    let Some((_, recipient, data)) = sent_by(&world, "bsd-mailx", &words, b"body\n") else { return };
    assert_eq!(recipient, "b@example.org");
    assert!(data.contains("Subject: x\r\n") && data.contains("body\r\n"), "{data}");
}

/// The command `mail` of Debian's mailutils.
#[test]
fn mailutils_sends_by_it() {
    let world = World::new();
    let mailer = format!("sendmail://{}", called(&world, "sendmail").display());
    let set = format!("set sendmail={mailer}");
    let words = ["-E", &set, "-s", "x", "b@example.org"].map(OsStr::new);
    let Some((_, recipient, data)) = sent_by(&world, "mail.mailutils", &words, b"body\n") else { return };
    assert_eq!(recipient, "b@example.org");
    assert!(data.contains("Subject: x\r\n") && data.contains("body\r\n"), "{data}");
}

/// A user of the group of the database puts mail in: the directory has that group and hands it on, so that the daemon can roll back what
/// is left of a killed submission.
#[test]
fn a_user_of_the_group_submits_and_others_may_not() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    use std::os::unix::process::CommandExt as _;
    const GROUP: u32 = 54_321;
    const USER: u32 = 54_322;
    if !nix::unistd::Uid::effective().is_root() {
        return skip("only root can be another user");
    }
    for journal_mode in ["delete", "wal"] {
        let world = World::in_journal_mode(journal_mode);
        world.insert(&Mail::to("a@example.org"));
        let config = world.write_config();
        let program = world.path("sendmail");
        std::fs::copy(tool::PROGRAM, &program).unwrap();
        for (path, mode) in
            [(world.directory(), 0o2770), (world.database.path(), 0o660), (&config, 0o640), (&program, 0o755)]
        {
            chown(path, None, Some(GROUP)).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        for beside in ["-wal", "-shm"].map(|suffix| world.path(&format!("master.db3{suffix}"))) {
            if beside.exists() {
                chown(&beside, None, Some(GROUP)).unwrap();
                std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o660)).unwrap();
            }
        }
        let submitted = |group: u32| {
            let mut command = Command::new(&program);
            command
                .env_remove("CMAIL_MASTER_DB")
                .arg("-C")
                .arg(&config)
                .arg("b@example.org")
                .uid(USER)
                .gid(group);
            tool::finish(command, b"x\n")
        };
        let taken = submitted(GROUP);
        assert_eq!(taken.code(), Some(0), "{journal_mode}: {}", taken.stderr);
        assert_eq!(submitters(&world).pop(), Some(format!("local:{USER}")));
        assert_eq!(std::fs::metadata(world.database.path()).unwrap().gid(), GROUP);
        assert_eq!(world.database.ids().len(), 2);
        // Who may read, and not write, is told so.
        std::fs::set_permissions(world.directory(), std::fs::Permissions::from_mode(0o2755)).unwrap();
        let refused = submitted(GROUP);
        assert_eq!(refused.code(), Some(77), "{journal_mode}: {}", refused.stderr);
        assert!(refused.stderr.contains(&world.directory().display().to_string()), "{}", refused.stderr);
        // And who may not even read the configuration.
        let refused = submitted(USER);
        assert_eq!(refused.code(), Some(77), "{journal_mode}: {}", refused.stderr);
        assert!(refused.stderr.contains(&config.display().to_string()), "{}", refused.stderr);
    }
}

/// What the sender wants to be told of the mail.
#[test]
fn wishes_for_reports_are_kept_and_shown() {
    let world = World::new();
    let words = ["-N", "success,delay", "-R", "hdrs", "-V", "order+17 =", "a@example.org", "b@example.org"];
    assert_eq!(sendmail(&world, &words, b"x\n").code(), Some(0));
    assert_eq!(sendmail(&world, &["c@example.org"], b"x\n").code(), Some(0));
    let kept: Vec<(i64, String, String, String)> = {
        let sql =
            "SELECT mail_id, notify, ret, envid FROM dispatch_envelope WHERE orcpt IS NULL ORDER BY mail_id";
        let mut statement = world.database.connection.prepare(sql).unwrap();
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        statement.query_map([], row).unwrap().map(Result::unwrap).collect()
    };
    let wishes = |id| (id, "SUCCESS,DELAY".to_owned(), "HDRS".to_owned(), "order+17 =".to_owned());
    assert_eq!(kept, [wishes(1), wishes(2)]);
    let line = "  wishes       NOTIFY=SUCCESS,DELAY, RET=HDRS, ENVID=order+17 =\n";
    for verb in ["show", "explain"] {
        let shown = tool::run(&world, &[verb, "1"]).stdout;
        assert!(shown.contains(line), "{verb}: {shown}");
        assert!(!tool::run(&world, &[verb, "3"]).stdout.contains("wishes"));
    }
    let records = tool::records(&world, &["list"]);
    let of = |index: usize| ["notify", "orcpt", "ret", "envid"].map(|name| records[index][name].clone());
    assert_eq!(of(0), ["SUCCESS,DELAY".into(), serde_json::Value::Null, "HDRS".into(), "order+17 =".into()]);
    assert!(of(2).iter().all(serde_json::Value::is_null));
    for words in [["-N", "never,success"], ["-R", "some"], ["-V", "\u{e4}"]] {
        let finished = sendmail(&world, &[words[0], words[1], "a@example.org"], b"x\n");
        assert_eq!(finished.code(), Some(64));
        assert!(finished.stderr.contains(words[0]), "{}", finished.stderr);
    }
}
