use super::*;

#[test]
fn options_are_read_by_name_and_a_wrong_one_keeps_what_held() {
    let (before, errors) = Options::read([("queueLimit", "64"), ("queueTimeout", "5s")], &Options::default());
    assert!(errors.is_empty());
    assert_eq!((before.queue.limit, before.queue.timeout), (64, Duration::from_secs(5)));
    let pairs = [("queueLimit", "many"), ("scheduler", "leastLoad"), ("health.mode", "lazy"), ("queLimit", "1")];
    let (after, errors) = Options::read(pairs, &before);
    assert_eq!((after.queue.limit, after.queue.timeout), (64, Queue::default().timeout));
    assert_eq!((after.scheduler, after.health.mode), (Scheduler::LeastLoad, HealthMode::Lazy));
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let expected =
        ["queueLimit is \"many\", expected a whole number from 0 to 1000000", "\"queLimit\" is unknown and ignored"];
    assert_eq!(errors, expected);
    let pairs: Vec<_> = after.pairs().collect();
    assert_eq!(pairs, [("health.mode", "lazy"), ("queueLimit", "64"), ("scheduler", "leastLoad")]);
    assert_eq!(Options::read(pairs, &Options::default()).0, after, "what is carried on leads to the same");
}

#[test]
fn every_option_refuses_nonsense_and_names_are_distinct() {
    let takes_any_text = |name: &str| name == "health.body" || name.starts_with("errorPage.");
    for (place, definition) in DEFINITIONS.iter().enumerate() {
        let (options, errors) = Options::read([(definition.name, "no such value")], &Options::default());
        if !takes_any_text(definition.name) {
            assert_eq!(errors.len(), 1, "{}", definition.name);
            assert_eq!(options, Options::default(), "{}", definition.name);
        }
        assert!(DEFINITIONS[..place].iter().all(|other| other.name != definition.name));
    }
}

#[test]
fn defaults_are_as_they_are_documented() {
    for definition in DEFINITIONS {
        let is_setting = definition.default.starts_with("server.") || definition.default.starts_with("https.");
        if !(is_setting || definition.default.is_empty()) {
            let (mut options, errors) = Options::read([(definition.name, definition.default)], &Options::default());
            options.written.clear();
            assert_eq!((options, errors), (Options::default(), vec![]), "{}", definition.name);
        }
    }
}

#[test]
fn rules_name_buckets_whatever_the_order_and_every_fault_has_its_place() {
    let rules = r#"[{"header": ["X-Class", "vip"], "bucket": "VIP"}]"#;
    let (before, errors) =
        Options::read([("classify", rules), ("buckets", r#"{"VIP": "5..20 %"}"#)], &Options::default());
    assert!(errors.is_empty() && before.buckets.is_some() && before.classify.is_some(), "{errors:?}");
    assert_eq!(Options::read(before.pairs(), &Options::default()).0, before);
    let pairs = [("buckets", r#"{"VIP": "20..5 %", "Jail": "x"}"#), ("classify", r#"[{"bucket": "Other"}]"#)];
    let (after, errors) = Options::read(pairs, &before);
    assert_eq!(after, before, "the earlier values stay");
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert!(errors[0].starts_with("buckets[\"VIP\"]: found \"20..5 %\", the ceil"), "{errors:?}");
    assert!(errors[0].contains("; buckets[\"Jail\"]: found \"x\", expected the assured"), "{errors:?}");
    assert!(errors[1].starts_with("classify[0].bucket: found \"Other\", expected a bucket"), "{errors:?}");
}

#[test]
fn values_of_their_own_kind() {
    let table = [
        ("hash.key", "header:X-User", true),
        ("hash.key", "header:", false),
        ("hash.key", "query:user", true),
        ("hash.key", "query:", false),
        ("hash.key", "body", false),
        ("health.expect", "200-299,404", true),
        ("health.expect", "299-200", false),
        ("health.path", "/a b", false),
        ("health.path", "x", false),
    ];
    for (name, value, is_good) in table {
        let (_, errors) = Options::read([(name, value)], &Options::default());
        assert_eq!(errors.is_empty(), is_good, "{name} {value}");
    }
}
