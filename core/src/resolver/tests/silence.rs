//! Name servers of which none says anything any more.

use super::super::silence::SILENT_QUESTIONS_LIMIT;
use super::*;
use crate::system_error::NetworkTrouble;

/// The time of all attempts at one server.
const ALL_ATTEMPTS: Duration = Duration::from_secs(5);

fn ask(scene: &mut Scene, number: usize) {
    scene.mx(&format!("d{number}.example"));
}

/// Returns what is sent and answered meanwhile.
fn outputs_of(scene: &mut Scene, span: Duration) -> (Vec<Sent>, usize, Vec<String>) {
    let (mut sent, mut answers, mut warnings) = (vec![], 0, vec![]);
    let end = scene.now + span;
    loop {
        for output in scene.outputs() {
            match output {
                ResolverOutput::Datagram { query, to, octets } => sent.push(Sent { query, to, octets }),
                ResolverOutput::Answer(..) => answers += 1,
                ResolverOutput::Warning(text) => warnings.push(text),
                ResolverOutput::CloseDatagram(_)
                | ResolverOutput::Connect { .. }
                | ResolverOutput::Transmit(_)
                | ResolverOutput::Close(_) => {}
            }
        }
        let Some(at) = scene.resolver.poll_timeout().filter(|at| *at <= end) else { break };
        scene.now = scene.now.max(at);
        scene.resolver.handle_timeout(scene.now);
    }
    scene.now = end;
    (sent, answers, warnings)
}

/// Lets so many questions end without an answer, and has as many again wait.
fn silent(questions: usize) -> Scene {
    let mut scene = Scene::new();
    (0..questions).for_each(|number| ask(&mut scene, number));
    let (_, answers, _) = outputs_of(&mut scene, ALL_ATTEMPTS);
    assert_eq!(answers, questions);
    scene
}

fn limit() -> usize {
    usize::try_from(SILENT_QUESTIONS_LIMIT).unwrap()
}

#[test]
fn when_no_server_answers_one_question_at_a_time_is_asked() {
    let mut scene = silent(limit());
    (100..400).for_each(|number| ask(&mut scene, number));
    let (sent, answers, _) = outputs_of(&mut scene, ALL_ATTEMPTS - Duration::from_secs(1));
    // Once with and once without EDNS.
    assert_eq!((sent.len(), answers), (2, 0));
    let (sent, answers, warnings) = outputs_of(&mut scene, Duration::from_secs(1));
    assert_eq!((sent.len(), answers, warnings.len()), (1, 1, 0), "the next one, and nothing is told again");
    // A word is enough, whatever it is.
    scene.reply_with_code(&sent[0], ResponseCode::ServFail);
    let (sent, answers, warnings) = outputs_of(&mut scene, Duration::ZERO);
    assert_eq!((sent.len(), answers), (CONCURRENT_QUESTIONS_LIMIT, 1));
    assert!(warnings[0].contains("answers again"), "{warnings:?}");
}

#[test]
fn the_silence_is_told_once() {
    let mut scene = Scene::new();
    (0..limit() - 1).for_each(|number| ask(&mut scene, number));
    let (_, _, warnings) = outputs_of(&mut scene, ALL_ATTEMPTS);
    assert!(warnings.is_empty());
    ask(&mut scene, 1000);
    let (_, _, warnings) = outputs_of(&mut scene, ALL_ATTEMPTS);
    assert!(warnings.len() == 1 && warnings[0].contains("192.0.2.1:53"), "{warnings:?}");
}

#[test]
fn silence_about_some_domains_is_none_while_others_are_answered() {
    let mut scene = Scene::new();
    for round in 0..10 {
        (0..limit() - 1).for_each(|number| ask(&mut scene, 1000 * round + number));
        let (..) = outputs_of(&mut scene, ALL_ATTEMPTS);
        scene.mx(&format!("good{round}.example"));
        let sent = scene.one_sent();
        scene.reply_with(&sent, vec![mx_record(&format!("good{round}.example."), 1, "mx.example.")]);
        assert_eq!(outputs_of(&mut scene, Duration::ZERO).1, 1);
    }
    (0..100).for_each(|number| ask(&mut scene, number + 500_000));
    assert_eq!(scene.sent().len(), 100);
}

#[test]
fn a_new_question_ends_a_silence_that_was_about_others() {
    let mut scene = silent(limit());
    (100..400).for_each(|number| ask(&mut scene, number));
    let (..) = outputs_of(&mut scene, Duration::ZERO);
    scene.mx("good.example");
    let (sent, ..) = outputs_of(&mut scene, ALL_ATTEMPTS * 3 - Duration::from_secs(1));
    let names: Vec<Name> = sent.iter().map(|sent| sent.message().queries[0].name().clone()).collect();
    assert!(names.contains(&name("good.example.")), "it does not wait for all of them: {names:?}");
}

#[test]
fn refused_datagrams_are_no_silence() {
    let mut scene = Scene::new();
    for number in 0..2 * limit() {
        ask(&mut scene, number);
        let sent = scene.one_sent();
        scene.resolver.handle_datagram_failed(
            scene.now,
            sent.query,
            ConnectError::remote(NetworkTrouble::Refused, "refused"),
        );
        assert_eq!(outputs_of(&mut scene, Duration::ZERO).2, Vec::<String>::new());
    }
    (1000..1100).for_each(|number| ask(&mut scene, number));
    assert_eq!(scene.sent().len(), 100);
}
