use super::*;

#[test]
fn events_happen_in_the_order_of_their_times_and_then_of_their_scheduling() {
    let mut clock = Clock::new();
    clock.after(Duration::from_secs(2), 'c');
    clock.after(Duration::from_secs(1), 'a');
    clock.after(Duration::from_secs(1), 'b');
    let order: String = std::iter::from_fn(|| clock.pop()).collect();
    assert_eq!(order, "abc");
    assert_eq!(clock.now().wall, UnixTime(EPOCH + 2));
}
