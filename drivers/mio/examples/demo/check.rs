//! Whether everything came to the end that it should.

use crate::Result;
use crate::outbox::{Bounce, Failure, Outbox};
use crate::smtp::{Received, Record};
use crate::story::{self, Mail, Outcome};

/// What is known when everything is over.
#[derive(Debug)]
pub(crate) struct Evidence {
    /// Whether the outbox was empty in time.
    pub(crate) is_empty: bool,
    /// What was to be sent.
    pub(crate) mails: Vec<Mail>,
    /// The attempts that have failed.
    pub(crate) failures: Vec<Failure>,
    /// The bounces that were made.
    pub(crate) bounces: Vec<Bounce>,
    /// What the servers have seen.
    pub(crate) records: Vec<Record>,
    /// The log of the daemon.
    pub(crate) log: String,
}

/// What became of one mail.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Its number in the outbox, if it had one.
    pub(crate) mail: Option<i64>,
    /// Whom it was for.
    pub(crate) recipient: String,
    /// What happened.
    pub(crate) outcome: String,
    /// Everything that is not as it should be.
    pub(crate) problems: Vec<String>,
}

impl Evidence {
    /// The copies of mail for a recipient that servers have accepted, with the names of the servers.
    fn copies(&self, recipient: &str) -> Vec<(&'static str, &Received)> {
        let all = self
            .records
            .iter()
            .flat_map(|record| record.received.iter().map(move |received| (record.manners.name, received)));
        all.filter(|(_, received)| received.recipients.iter().any(|found| found == recipient)).collect()
    }
}

/// What became of every mail, of the bounce, and of the database.
pub(crate) fn verdicts(evidence: &Evidence, outbox: &Outbox) -> Result<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    for mail in &evidence.mails {
        verdicts.push(of_mail(evidence, mail, outbox.holds(mail.id)?));
    }
    verdicts.push(of_bounce(evidence));
    let rows = outbox.faillog_rows()?;
    let received: usize = evidence.records.iter().map(|record| record.received.len()).sum();
    let mut problems = Vec::new();
    require(&mut problems, evidence.is_empty, "the outbox was not empty in time");
    require(&mut problems, rows == 0, "rows are left in faillog");
    // Everybody but nobody got one mail, and the sender the bounce.
    require(&mut problems, received == evidence.mails.len(), "the servers have too many or too few mails");
    verdicts.push(Verdict {
        mail: None,
        recipient: "(outbox and faillog)".to_owned(),
        outcome: if evidence.is_empty && rows == 0 { "empty" } else { "not empty" }.to_owned(),
        problems,
    });
    Ok(verdicts)
}

fn require(problems: &mut Vec<String>, holds: bool, otherwise: &str) {
    if !holds {
        problems.push(otherwise.to_owned());
    }
}

fn of_mail(evidence: &Evidence, mail: &Mail, is_queued: bool) -> Verdict {
    let mut problems = Vec::new();
    let failures: Vec<&Failure> =
        evidence.failures.iter().filter(|failure| failure.mail == mail.id).collect();
    let copies = evidence.copies(mail.recipient);
    require(&mut problems, !is_queued, "it is still in the outbox");
    let outcome = match mail.outcome {
        Outcome::Delivered => {
            require(&mut problems, failures.is_empty(), "an attempt has failed");
            delivery(mail, &copies, &mut problems)
        }
        Outcome::DeliveredDespite(dead) => {
            require(&mut problems, failures.is_empty(), "an attempt has failed");
            let is_tried = evidence.log.contains(&format!("connecting to {dead} "));
            require(&mut problems, is_tried, &format!("{dead} was not tried"));
            let name = dead.split('.').next().unwrap_or(dead);
            format!("{}, as {name} is dead", delivery(mail, &copies, &mut problems))
        }
        Outcome::DeliveredAfter(text) => {
            let is_right =
                matches!(&*failures, [failure] if !failure.fatal && failure.message.starts_with(text));
            require(&mut problems, is_right, &format!("not exactly one attempt has failed with {text}"));
            format!("{} after {text}", delivery(mail, &copies, &mut problems))
        }
        Outcome::Bounced(text) => {
            let is_right =
                matches!(&*failures, [failure] if failure.fatal && failure.message.starts_with(text));
            require(
                &mut problems,
                is_right,
                &format!("not exactly one attempt has failed with {text}, fatally"),
            );
            require(&mut problems, copies.is_empty(), "a server has accepted it");
            if copies.is_empty() { format!("refused with {text}, bounced") } else { "delivered".to_owned() }
        }
    };
    Verdict { mail: Some(mail.id), recipient: mail.recipient.to_owned(), outcome, problems }
}

/// Checks that a mail has arrived once, where it should and as it was sent.
fn delivery(mail: &Mail, copies: &[(&'static str, &Received)], problems: &mut Vec<String>) -> String {
    let [(server, received)] = copies else {
        problems.push(format!("{} servers have it", copies.len()));
        return "not delivered once".to_owned();
    };
    require(problems, *server == mail.server, "the wrong server has it");
    require(problems, received.sender == story::SENDER, "it has the wrong sender");
    require(problems, received.data == mail.data.as_bytes(), "it was changed on the way");
    require(problems, received.by_tls == mail.by_tls, "it is wrong about TLS");
    require(problems, received.authenticated == mail.remote.is_some(), "it is wrong about the password");
    let how = match (received.authenticated, received.by_tls) {
        (true, _) => ", TLS and password",
        (false, true) => ", TLS",
        (false, false) => "",
    };
    format!("delivered to {server}{how}")
}

/// Checks that there is one bounce, that it says what a bounce has to say, and that the sender got it.
fn of_bounce(evidence: &Evidence) -> Verdict {
    let mut problems = Vec::new();
    let [bounce] = &*evidence.bounces else {
        let problems = vec![format!("{} bounces were made", evidence.bounces.len())];
        return Verdict {
            mail: None,
            recipient: story::SENDER.to_owned(),
            outcome: "no".to_owned(),
            problems,
        };
    };
    require(&mut problems, bounce.recipient == story::SENDER, "the bounce is not for the sender");
    let copies = evidence.copies(story::SENDER);
    let got = matches!(&*copies, [(story::HOME, received)] if received.sender.is_empty() && received.by_tls
        && received.data == bounce.data.as_bytes());
    require(
        &mut problems,
        got,
        "the sender's server does not have the bounce, as it was made and without sender",
    );
    // Header fields may be folded, so white space does not count.
    let text = bounce.data.split_whitespace().collect::<Vec<_>>().join(" ");
    for needle in [
        "To: <alice@home.example>",
        "Auto-Submitted: auto-replied",
        "multipart/report",
        "Reporting-MTA: dns; out.home.example",
        "Final-Recipient: rfc822; nobody@friendly.example",
        "Action: failed",
        "Status: 5.1.1",
        "Remote-MTA: dns; mx.friendly.example",
        "Diagnostic-Code: smtp; 550 5.1.1 <nobody@friendly.example>: no such mailbox here",
        "Shall we meet for tea at four",
    ] {
        require(&mut problems, text.contains(needle), &format!("the bounce does not say `{needle}`"));
    }
    require(&mut problems, !text.contains("dora@"), "the bounce tells of somebody else's mail");
    let outcome =
        if got { format!("the bounce, delivered to {}, TLS", story::HOME) } else { "lost".to_owned() };
    Verdict { mail: Some(bounce.mail), recipient: story::SENDER.to_owned(), outcome, problems }
}
