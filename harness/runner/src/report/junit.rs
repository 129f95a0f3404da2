//! JUnit XML: a suite for each engine and folder of scenarios.

use std::time::Duration;

use fsnotify::counted;
use quick_junit::{
    NonSuccessKind, Property, Report, SerializeError, TestCase, TestCaseStatus, TestSuite,
};

use super::{CaseResult, Results};

pub(super) fn print(results: &Results) -> Result<String, SerializeError> {
    let mut report = Report::new("notifreeze");
    report.set_time(Duration::from_micros(results.wall_us));
    for cases in results
        .cases
        .chunk_by(|one, other| suite_name(one) == suite_name(other))
    {
        let mut suite = TestSuite::new(suite_name(&cases[0]));
        suite.set_time(
            cases
                .iter()
                .map(|case| Duration::from_micros(case.wall_us))
                .sum(),
        );
        suite.add_test_cases(cases.iter().map(test_case));
        report.add_test_suite(suite);
    }
    let untold: Vec<TestCase> = results.untold().map(untold).collect();
    if !untold.is_empty() {
        let mut suite = TestSuite::new(UNTOLD);
        suite.add_test_cases(untold);
        report.add_test_suite(suite);
    }
    report.to_string()
}

/// The suite of what is only counted.
const UNTOLD: &str = "counted";

fn untold((verdict, count): (&'static str, usize)) -> TestCase {
    let status = match verdict {
        "skip" => TestCaseStatus::skipped(),
        _ => TestCaseStatus::success(),
    };
    let mut test = TestCase::new(format!("{}: {verdict}", counted(count, "case")), status);
    test.set_classname(UNTOLD);
    test.add_property(Property::new("verdict", verdict));
    test
}

fn suite_name(case: &CaseResult) -> String {
    match case.name.rsplit_once('/') {
        Some((folder, _)) => format!("{}.{}", case.engine, folder.replace('/', ".")),
        None => case.engine.clone(),
    }
}

fn test_case(case: &CaseResult) -> TestCase {
    let mut status = match case.verdict {
        "skip" => TestCaseStatus::skipped(),
        "fail" | "fixed" => TestCaseStatus::non_success(NonSuccessKind::Failure),
        "broken" => TestCaseStatus::non_success(NonSuccessKind::Error),
        _ => TestCaseStatus::success(),
    };
    if case.is_bad() || case.verdict == "skip" {
        status.set_message(case.headline());
        status.set_type(case.verdict);
    }
    if let Some(reason) = case.reason.as_ref().filter(|_| case.is_bad()) {
        status.set_description(format!("{reason}\nrepeat: {}", case.repeat));
    }
    let mut test = TestCase::new(case.name.as_str(), status);
    test.set_classname(suite_name(case));
    test.set_time(Duration::from_micros(case.wall_us));
    test.add_property(Property::new("verdict", case.verdict));
    test.add_property(Property::new("file", case.file.as_str()));
    if case.verdict == "known" {
        test.add_property(Property::new("known", case.headline()));
    }
    if let Some(text) = case.text.as_ref().filter(|_| case.verdict != "pass") {
        test.set_system_out(text.as_str());
    }
    test
}
