//! The table of reports: nothing is lost while there is space, and nothing is entered twice by one after the other.

use crate::hang_reports::{HangReports, Subject};
use crate::limits::REPORTS_MAX;
use crate::tests::bench;

const SUBJECTS: [Subject; 4] = [
    Subject::Lock { offset: 0 },
    Subject::Lock { offset: 1 << 47 },
    Subject::Connection { index: u32::MAX },
    Subject::Role { slot: 0 },
];

fn reported(hang_reports: &HangReports) -> Vec<Subject> {
    hang_reports.pending().map(|(_, subject)| subject).collect()
}

#[test]
fn a_word_says_what_was_put_into_it() {
    for subject in SUBJECTS {
        assert_ne!(subject.to_word(), 0);
        assert_eq!(Subject::from_word(subject.to_word()), Some(subject));
    }
    assert_eq!(Subject::from_word(0), None);
    assert_eq!(Subject::from_word(u64::MAX >> 1), None);
}

#[test]
fn what_a_thousand_report_is_entered_once_until_it_is_dismissed() {
    let hang_reports = &bench().1.hang_reports;
    for _ in 0..1000 {
        SUBJECTS.iter().for_each(|subject| hang_reports.report(*subject));
    }
    assert_eq!(reported(hang_reports), SUBJECTS);
    // Seen, it is still the same report.
    hang_reports.report(SUBJECTS[1]);
    assert_eq!(reported(hang_reports), SUBJECTS);
    hang_reports.clear(1);
    assert_eq!(reported(hang_reports).len(), SUBJECTS.len() - 1);
    hang_reports.report(SUBJECTS[1]);
    assert_eq!(reported(hang_reports), SUBJECTS);
    assert_eq!(hang_reports.reported_total(), 4002);
}

#[test]
fn a_full_table_takes_no_more_and_goes_on_when_there_is_space() {
    let hang_reports = &bench().1.hang_reports;
    let all = 0..u32::try_from(REPORTS_MAX).expect("small") + 1;
    let raise_all = || {
        all.clone()
            .for_each(|index| hang_reports.report(Subject::Connection { index }));
    };
    raise_all();
    assert_eq!(reported(hang_reports).len(), REPORTS_MAX);
    hang_reports.clear(0);
    raise_all();
    assert_eq!(reported(hang_reports).len(), REPORTS_MAX);
}
