//! Opens without an answer: how many there may be, in all and for each target, and until when each is to be answered.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use crate::{frame::StreamId, key::TargetName};

#[derive(Debug)]
pub(crate) struct Unanswered {
    count: u32,
    /// For each target that has any.
    of_targets: BTreeMap<TargetName, u32>,
    /// Until when each OPEN that was laid is to be answered, in their order.
    deadlines: VecDeque<(StreamId, Instant)>,
    most: u32,
    most_of_target: u32,
}

impl Unanswered {
    /// None yet, of so many in all and for one target.
    pub(crate) fn new(most: u32, most_of_target: u32) -> Self {
        Self { count: 0, of_targets: BTreeMap::new(), deadlines: VecDeque::new(), most, most_of_target }
    }

    /// Whether one more may be opened.
    pub(crate) fn has_room(&self, target: &TargetName) -> bool {
        self.count < self.most && self.of_targets.get(target).is_none_or(|count| *count < self.most_of_target)
    }

    pub(crate) fn add(&mut self, target: &TargetName) {
        self.count = self.count.saturating_add(1);
        let of_target = self.of_targets.entry(target.clone()).or_default();
        *of_target = of_target.saturating_add(1);
    }

    /// The OPEN of the newest was laid into a message, to be answered in time.
    pub(crate) fn on_laid(&mut self, id: StreamId, answer_by: Instant) {
        self.deadlines.push_back((id, answer_by));
    }

    /// One that was [added](Self::add) has its answer, or is to have none.
    pub(crate) fn remove(&mut self, id: StreamId, target: &TargetName) {
        self.count = self.count.saturating_sub(1);
        if let Some(count) = self.of_targets.get_mut(target) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_targets.remove(target);
            }
        }
        if let Ok(at) = self.deadlines.binary_search_by_key(&id, |(id, _)| *id) {
            self.deadlines.remove(at);
        }
    }

    /// When the answer to the oldest is overdue.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(_, by)| *by)
    }

    /// One whose answer is overdue; taken once.
    pub(crate) fn take_overdue(&mut self, now: Instant) -> Option<StreamId> {
        let (id, _) = *self.deadlines.front().filter(|(_, by)| *by <= now)?;
        self.deadlines.pop_front();
        Some(id)
    }

    /// All have their whole time again, since there was no link for them.
    pub(crate) fn restart(&mut self, answer_by: Instant) {
        self.deadlines.iter_mut().for_each(|(_, by)| *by = answer_by);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(number: u32) -> StreamId {
        StreamId::new(number).unwrap()
    }

    #[test]
    fn there_are_so_many_in_all_and_for_one_target_until_they_are_answered() {
        let [web, vnc, default] = ["web", "vnc", ""].map(|name| name.parse().unwrap());
        let mut opens = Unanswered::new(3, 2);
        opens.add(&web);
        opens.add(&web);
        assert!(!opens.has_room(&web) && opens.has_room(&vnc));
        opens.add(&default);
        assert!(!opens.has_room(&vnc));
        opens.remove(id(1), &web);
        assert!(opens.has_room(&web) && opens.has_room(&vnc));
        assert_eq!(opens.of_targets.len(), 2);
        opens.remove(id(3), &default);
        assert_eq!(opens.of_targets.len(), 1);
    }

    #[test]
    fn the_oldest_is_overdue_first_and_once() {
        let (now, target) = (Instant::now(), TargetName::default());
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut opens = Unanswered::new(9, 9);
        for n in 1..=3 {
            opens.add(&target);
            opens.on_laid(id(n), after(u64::from(n)));
        }
        assert_eq!((opens.deadline(), opens.take_overdue(now)), (Some(after(1)), None));
        opens.remove(id(1), &target);
        assert_eq!(opens.take_overdue(after(3)), Some(id(2)));
        opens.restart(after(9));
        assert_eq!((opens.deadline(), opens.take_overdue(after(8))), (Some(after(9)), None));
        assert_eq!([(); 2].map(|()| opens.take_overdue(after(9))), [Some(id(3)), None]);
    }
}
