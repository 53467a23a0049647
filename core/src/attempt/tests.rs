use super::*;
use crate::reply::ReplyCode;

fn server() -> Arc<Server> {
    let address = SocketAddr::from(([192, 0, 2, 1], 25));
    Arc::new(Server { host: Host::Address(address.ip()), address, tls: None })
}

fn reply(code: u16, line: &str) -> Reply {
    Reply::new(ReplyCode::new(code).unwrap(), [line.as_bytes().into()].into())
}

fn refused(command: CommandName, fatal: bool) -> Failure {
    Failure::Refused { server: server(), reply: reply(550, "5.1.1 who?"), command, fatal }
}

fn unreached(setback: Option<Setback>) -> Failure {
    let tried = setback.map(|setback| Tried { server: server(), setback }).into_iter().collect();
    let status = EnhancedStatus::NO_ANSWER;
    Failure::Unreached(Arc::new(Unreached { is_relay: false, tried, host: None, status }))
}

#[test]
fn a_failure_says_what_it_is_about_and_whether_it_is_for_good() {
    let wants_more = |protection| Setback::WantsMore {
        reply: reply(530, "5.7.0 no"),
        command: CommandName::Mail,
        protection,
    };
    let domain = || Domain::parse("example.org").unwrap();
    for (failure, kind, is_fatal) in [
        (refused(CommandName::Greeting, true), AttemptKind::Greeting, true),
        (refused(CommandName::Mail, false), AttemptKind::Sender, false),
        (refused(CommandName::Rcpt, true), AttemptKind::Recipient, true),
        (refused(CommandName::EndOfData, false), AttemptKind::Content, false),
        (Failure::Unfit(server(), Unfit::NeedsSmtpUtf8), AttemptKind::Address, true),
        (Failure::Uncertain(server(), EndCause::Closed), AttemptKind::Uncertain, false),
        (unreached(None), AttemptKind::Dns, false),
        (unreached(Some(Setback::ConnectTimedOut)), AttemptKind::Connect, false),
        (unreached(Some(Setback::Ended(EndCause::Closed))), AttemptKind::Lost, false),
        (unreached(Some(wants_more(Protection::None))), AttemptKind::Tls, false),
        (unreached(Some(wants_more(Protection::Tls))), AttemptKind::Auth, false),
        (Failure::Unresolved(Unresolved::NullMx(domain())), AttemptKind::Dns, true),
        (
            Failure::Unresolved(Unresolved::DnsFailed(
                DnsFailure::AliasLoop { name: "example.org".into() }.into(),
            )),
            AttemptKind::Dns,
            false,
        ),
        (Failure::Unsendable(Unsendable::Sender(AddressError::Empty)), AttemptKind::Address, true),
        (Failure::MalformedRelay(RelayError::Port), AttemptKind::Address, false),
    ] {
        assert_eq!((failure.kind(), failure.is_fatal()), (kind, is_fatal), "{failure:?}");
    }
}

#[test]
fn an_attempt_tells_the_server_its_words_and_their_status() {
    let (at, server, taken, who) =
        (UnixTime(7), server(), reply(250, "2.0.0 queued"), reply(550, "5.1.1 who?"));
    let acceptance = Acceptance { server: Arc::clone(&server), reply: taken.clone() };
    let nobody = ShownAddress::default();
    let failed = |result| Attempt { at, recipient: ShownAddress::default(), course: None, result };
    let facts = |server, reply, status, kind, is_fatal| AttemptFacts {
        at,
        recipient: &nobody,
        course: None,
        server,
        reply,
        status,
        kind,
        is_fatal,
    };
    assert_eq!(
        Attempt { at, recipient: ShownAddress::default(), course: None, result: acceptance }.facts(),
        facts(
            Some(&server),
            Some((&taken, CommandName::EndOfData)),
            Some(EnhancedStatus::new(2, 0, 0)),
            AttemptKind::Delivered,
            false
        )
    );
    assert_eq!(
        failed(refused(CommandName::Rcpt, true)).facts(),
        facts(
            Some(&server),
            Some((&who, CommandName::Rcpt)),
            Some(EnhancedStatus::new(5, 1, 1)),
            AttemptKind::Recipient,
            true
        )
    );
    assert_eq!(
        failed(Failure::Uncertain(Arc::clone(&server), EndCause::Closed)).facts(),
        facts(Some(&server), None, Some(EnhancedStatus::CONNECTION_LOST), AttemptKind::Uncertain, false)
    );
    let no_answer = Some(EnhancedStatus::NO_ANSWER);
    assert_eq!(failed(unreached(None)).facts(), facts(None, None, no_answer, AttemptKind::Dns, false));
}
