use super::*;

/// Waits for the name of a user.
fn wait(names: &mut UserNames, user: u32) -> String {
    let (user, since) = (Uid::from_raw(user), Instant::now());
    names.ask(user, since);
    loop {
        names.take_answers();
        if let Some(name) = names.name_of(user, since, since) {
            return name;
        }
        thread::yield_now();
    }
}

#[test]
fn names_are_found_and_numbers_stand_for_users_without_one() {
    let mut names = UserNames::new(|user| user.is_root().then(|| "root".to_owned())).unwrap();
    assert_eq!(wait(&mut names, 0), "root");
    assert_eq!(wait(&mut names, 4242), "4242");
    assert_eq!(look_up(Uid::from_raw(0)).as_deref(), Some("root"));
}

#[test]
fn a_directory_that_never_answers_costs_a_message_a_bounded_time() {
    let mut names = UserNames::new(|_| {
        thread::park();
        None
    })
    .unwrap();
    let (user, now) = (Uid::from_raw(7), Instant::now());
    names.ask(user, now);
    names.take_answers();
    assert_eq!(names.name_of(user, now, now), None);
    assert_eq!(names.name_of(user, now, now + PATIENCE).as_deref(), Some("7"));
}
