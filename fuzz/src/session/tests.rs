use cmail_delivery::session::Outcome;

use super::*;

/// Returns what a file of the corpus leads to: for each transaction `b` if it is sent in a batch, `r` with RSET behind it, and
/// for each recipient `+` delivered, `-` failed, `?` undecided.
fn outline(name: &str) -> String {
    let file = format!("{}/corpus/session/{name}", env!("CARGO_MANIFEST_DIR"));
    let talk = Talk::run(&std::fs::read(file).expect("the file is readable"), usize::MAX);
    let told = talk.outputs.iter().filter_map(|output| match output {
        SessionOutput::Verdicts(verdicts) => Some(verdicts),
        _ => None,
    });
    let mut verdicts: Vec<_> = told.collect();
    verdicts.sort_by_key(|verdicts| verdicts.first().map(|(recipient, _)| recipient.id));
    let mut verdicts = verdicts.into_iter();
    let sign = |(_, outcome): &(_, Outcome)| match outcome {
        Outcome::Delivered(_) | Outcome::Accepted(_) => '+',
        Outcome::Rejected { .. } | Outcome::Unfit(_) | Outcome::Uncertain(_) => '-',
        Outcome::Refused(_) => '/',
        Outcome::Undecided => '?',
    };
    let outline = talk.checker.conversation.transactions().iter().map(|seen| {
        let how = [(seen.is_batched, 'b'), (seen.is_reset, 'r')];
        let how = how.iter().filter(|(is, _)| *is).map(|(_, letter)| *letter);
        how.chain(verdicts.next().into_iter().flatten().map(sign)).collect::<String>()
    });
    outline.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_corpus_reaches_what_batches_and_odd_replies_can_lead_to() {
    let expected = [
        ("pipelined", "b++ b+ b+++"),
        ("envelope_behind_the_dot", "b+ b?"),
        ("lone_dot", "b-- b+ b// +"),
        ("cautious", "++ +"),
        ("unavailable_in_the_batch", "b+ b/"),
        ("lost_in_flight", "b- b?"),
        ("one_reply_too_many", "b- b??"),
        ("refused_in_the_middle", "+"),
        ("refused_in_the_middle_for_good", "-"),
        ("refusal_doubted", "+"),
        ("refusal_confirmed", "b- b-?"),
        ("refusal_shifted", "b- b??"),
        ("refusal_of_all_behind", "b+ b?"),
        ("wrong_3yz", "b??"),
        ("wrong_3yz_to_the_message", "b- b?"),
        ("padding_refused", "+"),
        ("reset_refused", "br??"),
        ("reset_refused_in_lockstep", "r-"),
        ("offers_before_tls", "+"),
        ("refused_for_now", "b+ b//+"),
        ("lost_the_thread", "r-/"),
        ("lost_the_thread_unasked", "-/"),
    ];
    let outlines = expected.map(|(name, _)| (name, outline(name)));
    assert_eq!(outlines.each_ref().map(|(name, outline)| (*name, outline.as_str())), expected);
}
