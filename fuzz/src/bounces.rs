//! Bounces: three parts with the fields they should have and no others, the original as it was, and nothing of any other
//! message.

use bytes::Bytes;
use cmail_delivery::bounce::{BounceSettings, compose};
use cmail_delivery::dsn::DsnWishes;
use cmail_delivery::hold::Hold;
use cmail_delivery::outbox::{FailedMail, FailedMessage, FaillogRow, MailId, Row};
use cmail_delivery::rng::Rng;
use cmail_delivery::time::UnixTime;

use crate::script::{contains, naive_lines, number, secret_for, steps};

/// Longest line that may be sent (RFC 5322 section 2.1.1), in octets without its end.
const LINE_LIMIT_OCTETS: usize = 998;

/// The settings and the message of a script.
struct Scene {
    announce: String,
    bounce_from: String,
    return_limit_octets: u64,
    now: UnixTime,
    message: FailedMessage,
}

/// Checks the bounce that a script describes: `announce N`, … by verbs, then an empty line and the original.
pub fn check(octets: &[u8]) {
    let scene = Scene::read(octets);
    let settings = BounceSettings {
        announce: &scene.announce,
        bounce_from: &scene.bounce_from,
        return_limit_octets: scene.return_limit_octets,
    };
    let bounce = compose(settings, &scene.message, scene.now, &mut Rng::from_seed([7; 32]));

    // After a bounce of another message the bounce is the same, and shows nothing of that message.
    let secret = secret_for(octets);
    let mut rng = Rng::from_seed([7; 32]);
    let mut other = rng.clone();
    compose(settings, &another_message(&secret), scene.now, &mut other);
    assert_eq!(
        bounce,
        compose(settings, &scene.message, scene.now, &mut rng),
        "equal arguments, equal octets"
    );

    let has_sender = scene.message.mails.first().is_some_and(|mail| mail.row.sender.is_some());
    assert_eq!(bounce.is_some(), has_sender);
    if let Some(bounce) = bounce {
        assert!(!contains(&bounce, secret.as_bytes()));
        scene.check_bounce(&bounce);
    }
}

fn another_message(secret: &str) -> FailedMessage {
    let attempt = FaillogRow { time: UnixTime(1), text: secret.as_bytes().into(), fatal: true };
    let row = row(Some(Bytes::copy_from_slice(secret.as_bytes())), secret.as_bytes());
    let mail = FailedMail { row, attempts: vec![attempt] };
    let original = Bytes::copy_from_slice(secret.as_bytes());
    FailedMessage { mails: vec![mail], data_octets: original.len() as u64, original }
}

fn row(sender: Option<Bytes>, recipient: &[u8]) -> Row {
    Row {
        id: MailId(1),
        remote: None,
        sender,
        recipient: Bytes::copy_from_slice(recipient),
        submission: UnixTime(0),
        data_octets: 0,
        fail_count: 1,
        last_try: UnixTime(0),
        fatal: true,
        last_failure: None,
        hold: Hold::default(),
        wishes: DsnWishes::default(),
    }
}

fn last_attempt(mails: &mut [FailedMail]) -> Option<&mut FaillogRow> {
    mails.last_mut().and_then(|mail| mail.attempts.last_mut())
}

impl Scene {
    /// `n` announce, `f` bounce_from, `l` return limit, `w` time, `s` sender, `r` recipient, `t` a failure text, `c` its
    /// next line, `!` it was fatal, `+` octets of the original that are not at hand.
    fn read(octets: &[u8]) -> Self {
        let end = octets.windows(2).position(|pair| pair == b"\n\n");
        let (script, original) = end.map_or((octets, &b""[..]), |end| (&octets[..end], &octets[end + 2..]));
        let text = |argument: &[u8]| String::from_utf8_lossy(argument).into_owned();
        let (mut announce, mut bounce_from) =
            (String::from("mail.example.org"), String::from("pm@example.org"));
        let (mut return_limit_octets, mut now, mut more) = (1000, UnixTime(1_800_000_000), 0);
        let mut sender: Option<Bytes> = None;
        let mut mails: Vec<FailedMail> = Vec::new();
        for (verb, argument) in steps(script) {
            match verb {
                b'n' => announce = text(argument),
                b'f' => bounce_from = text(argument),
                b'l' => return_limit_octets = number(argument, 0),
                b'w' => now = UnixTime(number(argument, 0) as i64 * 1000 - 1_000_000_000),
                b's' => sender = (!argument.is_empty()).then(|| Bytes::copy_from_slice(argument)),
                b'r' if mails.len() < 20 => {
                    let row = Row { submission: UnixTime(now.0 - 1000), ..row(None, argument) };
                    mails.push(FailedMail { row, attempts: Vec::new() });
                }
                b't' => {
                    if let Some(mail) = mails.last_mut() {
                        mail.attempts.push(FaillogRow { time: now, text: argument.into(), fatal: false });
                    }
                }
                b'c' => {
                    if let Some(attempt) = last_attempt(&mut mails) {
                        attempt.text = [&*attempt.text, b"\n", argument].concat().into();
                    }
                }
                b'!' => {
                    if let Some(attempt) = last_attempt(&mut mails) {
                        attempt.fatal = true;
                    }
                }
                b'+' => more = number(argument, 1),
                _ => {}
            }
        }
        for mail in &mut mails {
            mail.row.sender.clone_from(&sender);
        }
        let original = Bytes::copy_from_slice(original);
        let message = FailedMessage { mails, data_octets: original.len() as u64 + more, original };
        Self { announce, bounce_from, return_limit_octets, now, message }
    }

    fn check_bounce(&self, bounce: &[u8]) {
        let whole = Part::read(bounce);
        let allowed = [
            "From",
            "To",
            "Subject",
            "Date",
            "Message-ID",
            "Auto-Submitted",
            "In-Reply-To",
            "References",
            "MIME-Version",
            "Content-Type",
            "Content-Transfer-Encoding",
        ];
        whole.check_fields(&allowed, &allowed[..6]);
        assert_eq!(whole.field("Auto-Submitted"), Some("auto-replied"));
        let (_, boundary) =
            whole.field("Content-Type").and_then(|value| value.split_once("boundary=\"")).unwrap();
        let boundary = boundary.split('"').next().unwrap();
        let delimiter = format!("\r\n--{boundary}");
        let body = [b"\r\n", whole.body].concat();
        let pieces = split(&body, delimiter.as_bytes());
        // The part before the first delimiter, the three parts, and the part after the last one.
        assert_eq!(pieces.len(), 5, "{}", bounce.escape_ascii());
        assert!(pieces[0].is_empty() && pieces[4].starts_with(b"--"));
        let allowed = ["Content-Type", "Content-Description", "Content-Transfer-Encoding"];
        let parts = [1, 2, 3].map(|number| Part::read(pieces[number].strip_prefix(b"\r\n").unwrap()));
        for part in &parts {
            part.check_fields(&allowed, &allowed[..1]);
        }
        self.check_status(parts[1].body);
        self.check_original(&parts[2]);
    }

    /// RFC 3464 section 2: fields about the message, then a group of fields for each recipient.
    fn check_status(&self, status: &[u8]) {
        let text = str::from_utf8(status).expect("the delivery status is text");
        let groups: Vec<&str> = text.split("\r\n\r\n").collect();
        assert_eq!(groups.len(), self.message.mails.len() + 1, "{text}");
        for (number, group) in groups.iter().enumerate() {
            let group = Part::read_fields(group.strip_suffix("\r\n").unwrap_or(group));
            if number == 0 {
                group.check_fields(&["Reporting-MTA", "Arrival-Date"], &["Reporting-MTA"]);
                continue;
            }
            let allowed =
                ["Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date"];
            group.check_fields(&allowed, &allowed[..3]);
            assert_eq!(group.field("Action"), Some("failed"));
            let status = group.field("Status").unwrap();
            let numbers: Vec<u16> = status.split('.').map(|number| number.parse().unwrap()).collect();
            assert!(numbers.len() == 3 && matches!(numbers[0], 4 | 5), "{status}");
        }
    }

    /// The original as it was, whole if it may be, else its header section: nothing else is in the third part.
    fn check_original(&self, part: &Part<'_>) {
        let original = &self.message.original;
        let may_be_whole = self.message.data_octets == original.len() as u64
            && self.message.data_octets <= self.return_limit_octets
            && !is_hard_to_send(original);
        let media_type = part.field("Content-Type").unwrap();
        let is_whole = matches!(media_type, "message/rfc822" | "message/global");
        // A server's reply may be a reason against it.
        let was_tried = self.message.mails.iter().any(|mail| !mail.attempts.is_empty());
        assert!(is_whole == may_be_whole || (may_be_whole && was_tried), "{media_type}");
        assert!(!is_hard_to_send(part.body));
        let encoding = part.field("Content-Transfer-Encoding").unwrap();
        if encoding == "quoted-printable" {
            assert!(media_type != "message/rfc822" && part.body.is_ascii(), "{media_type}");
            return;
        }
        assert_eq!(encoding, if part.body.is_ascii() { "7bit" } else { "8bit" });
        if is_whole {
            assert_eq!(part.body.escape_ascii().to_string(), original.escape_ascii().to_string());
        } else {
            assert!(original.starts_with(part.body));
            assert!(
                naive_lines(part.body).iter().all(|line| !line.is_empty()),
                "there is more than a header"
            );
        }
    }
}

/// Returns whether the octets contain something that no message may contain.
fn is_hard_to_send(octets: &[u8]) -> bool {
    octets.contains(&0) || naive_lines(octets).iter().any(|line| line.len() > LINE_LIMIT_OCTETS)
}

/// The header fields of a message or part, unfolded, and what comes after.
struct Part<'a> {
    fields: Vec<(String, String)>,
    body: &'a [u8],
}

impl<'a> Part<'a> {
    fn read(octets: &'a [u8]) -> Self {
        let end =
            octets.windows(4).position(|window| window == b"\r\n\r\n").expect("a header without an end");
        let header = str::from_utf8(&octets[..end]).expect("a header is text");
        Self { body: &octets[end + 4..], ..Self::read_fields(header) }
    }

    fn read_fields(header: &str) -> Self {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in header.split("\r\n") {
            assert!(line.len() <= LINE_LIMIT_OCTETS, "{} octets in {line:?}", line.len());
            assert!(!line.chars().any(|character| character.is_control() && character != '\t'), "{line:?}");
            assert!(!line.trim().is_empty(), "an empty line in {header:?}");
            if line.starts_with([' ', '\t']) {
                let (_, value) = fields.last_mut().expect("a header begins with a field");
                value.push_str(line);
                continue;
            }
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line:?}"));
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
        Self { fields, body: &[] }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| &**value)
    }

    /// No field stands twice, none is there that should not be, and all are that must be.
    fn check_fields(&self, allowed: &[&str], required: &[&str]) {
        let names: Vec<&str> = self.fields.iter().map(|(name, _)| &**name).collect();
        for (position, name) in names.iter().enumerate() {
            assert!(allowed.contains(name), "{name} in {names:?}");
            assert!(!names[..position].contains(name), "{name} twice in {names:?}");
        }
        for name in required {
            assert!(names.contains(name), "no {name} in {names:?}");
        }
    }
}

fn split<'a>(octets: &'a [u8], delimiter: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = octets;
    while let Some(at) = rest.windows(delimiter.len()).position(|window| window == delimiter) {
        pieces.push(&rest[..at]);
        rest = &rest[at + delimiter.len()..];
    }
    pieces.push(rest);
    pieces
}
