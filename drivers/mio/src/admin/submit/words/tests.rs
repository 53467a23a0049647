use super::*;

fn parsed(words: &str) -> Result<SendmailWords, SendmailError> {
    parse(words.split_whitespace().map(OsString::from))
}

fn request(words: &str) -> Request {
    match parsed(words).unwrap().task {
        Task::Submit(request) => request,
        other @ (Task::List | Task::RunQueue | Task::Help) => panic!("{words}: {other:?}"),
    }
}

/// The command lines of programs that send mail by sendmail.
#[test]
fn well_known_programs_are_understood() {
    // cron of Debian.
    let cron = request("-i -FCronDaemon -B8BITMIME -oem root");
    assert_eq!((cron.full_name, cron.ignores_dots), (Some("CronDaemon".into()), true));
    assert_eq!(cron.recipients, ["root"]);
    // PHP.
    let php = request("-t -i -f bounce@client.example");
    assert_eq!(
        (php.sender, php.reads_recipients, php.ignores_dots),
        (Some("bounce@client.example".into()), true, true)
    );
    // git send-email.
    let git = request("-i -f a@client.example b@example.org c@example.net");
    assert_eq!(git.recipients, ["b@example.org", "c@example.net"]);
    // mutt, msmtp-like: the recipients behind two hyphens.
    let mutt = request("-oem -oi -fa@client.example -- -odd@example.org b@example.org");
    assert_eq!((mutt.sender, mutt.ignores_dots), (Some("a@client.example".into()), true));
    assert_eq!(mutt.recipients, ["-odd@example.org", "b@example.org"]);
    // Options may be joined, and follow the recipients.
    let joined =
        request("b@example.org -tif a@client.example -N success,delay -R hdrs -V 17 -O IgnoreDots=true");
    assert_eq!(
        (joined.sender, joined.reads_recipients, joined.ignores_dots),
        (Some("a@client.example".into()), true, true)
    );
    assert_eq!(joined.recipients, ["b@example.org"]);
    let DsnWishes { notify, message, .. } = joined.wishes;
    assert_eq!(notify.map(|notify| notify.to_string()).as_deref(), Some("SUCCESS,DELAY"));
    assert_eq!(
        (message.extent, message.envelope_id),
        (Some(ReturnExtent::Headers), EnvelopeId::parse("17").ok())
    );
    assert_eq!(parsed("-C other.conf -bp").unwrap().config, Some("other.conf".into()));
    assert!(!request("-oem -odi a").ignores_dots);
    assert!(request("-o i a").ignores_dots);
}

#[test]
fn other_modes_are_told_apart() {
    assert_eq!(parsed("-bp").map(|words| words.task), Ok(Task::List));
    assert_eq!(parsed("-b p").map(|words| words.task), Ok(Task::List));
    for words in ["-q", "-q15m", "-qRexample.org"] {
        assert_eq!(parsed(words).map(|words| words.task), Ok(Task::RunQueue), "{words}");
    }
    for words in ["-bs", "-bd", "-bi", "-b"] {
        assert!(parsed(words).is_err(), "{words}");
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    for words in ["-y", "-f", "--hlp", "-N sometimes", "-N never,delay", "-R all", "-N", "-V \u{e4}"] {
        assert!(parsed(words).is_err(), "{words}");
    }
}

/// What is to be debugged is attached to `-d`, and the next word is not that.
#[test]
fn debugging_takes_no_word() {
    for words in [&["-d", "a@b"][..], &["-d0.1", "a@b"], &["-id", "a@b"]] {
        let parsed = parse(words.iter().map(OsString::from)).unwrap();
        let Task::Submit(request) = parsed.task else { panic!("{words:?}") };
        assert_eq!(request.recipients, ["a@b"], "{words:?}");
    }
}
