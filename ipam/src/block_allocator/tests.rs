//! Compares the allocator with a naive model, which stores the state of each address.

use proptest::prelude::*;

use super::*;

const COOLDOWN: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> BootTime {
    BootTime(Duration::from_secs(seconds))
}

fn block(bits: u8) -> BlockRange {
    BlockRange::parse(Some(&format!("10.0.0.0/{}", 32 - bits)), None).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Pick,
    Early,
    Hold(u32),
    Free(u32),
    Cool(u32, u64),
    Exclude(u32),
    Reserve(u32),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Pick),
        1 => Just(Step::Early),
        1 => (0_u32..9).prop_map(Step::Hold),
        5 => (0_u32..9).prop_map(Step::Free),
        1 => (0_u32..9, 0_u64..60).prop_map(|(offset, time)| Step::Cool(offset, time)),
        1 => (0_u32..9).prop_map(Step::Exclude),
        1 => (0_u32..8).prop_map(Step::Reserve),
        3 => (0_u64..8).prop_map(Step::Wait),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Unused,
    Held,
    Cooling(BootTime),
}

/// The naive model of the allocator.
struct Model {
    places: Vec<Place>,
    excluded: Vec<bool>,
    reserved: Option<u32>,
}

impl Model {
    fn may(&self, offset: usize) -> bool {
        !self.excluded[offset] && self.reserved != Some(offset as u32)
    }

    fn eligible(&self, wanted: impl Fn(Place) -> bool) -> Vec<u32> {
        (0..self.places.len()).filter(|i| self.may(*i) && wanted(self.places[*i])).map(|i| i as u32).collect()
    }

    fn longest(&self) -> Option<(u32, BootTime)> {
        let mut cooling: Vec<(BootTime, u32)> = Vec::new();
        for (offset, place) in self.places.iter().enumerate() {
            if let (Place::Cooling(since), true) = (*place, self.may(offset)) {
                cooling.push((since, offset as u32));
            }
        }
        cooling.sort_unstable();
        cooling.first().map(|(since, offset)| (*offset, *since))
    }

    fn pick(&self, now: BootTime) -> Option<u32> {
        let unused = self.eligible(|place| place == Place::Unused);
        unused
            .first()
            .copied()
            .or_else(|| self.longest().filter(|(_, since)| now.0 >= since.0 + COOLDOWN).map(|(offset, _)| offset))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn the_allocator_does_the_same_as_the_naive_model(
        cooling_since in prop::option::of(0_u64..40), steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut now = at(40);
        let mut block = BlockAllocator::new(block(3), &Reserved::default(), cooling_since.map(at));
        let first = cooling_since.map_or(Place::Unused, |since| Place::Cooling(at(since)));
        let mut model = Model { places: vec![first; 8], excluded: vec![false; 8], reserved: None };
        for step in steps {
            match step {
                Step::Pick | Step::Early => {
                    let early = matches!(step, Step::Early);
                    let expected = if early { model.longest().map(|(offset, _)| offset) } else { model.pick(now) };
                    let picked = if early { block.longest_cooling().map(|(offset, _)| offset) } else { block.pick_cooled(now, COOLDOWN) };
                    prop_assert_eq!(picked, expected);
                    if let Some(offset) = picked {
                        prop_assert!(model.places[offset as usize] != Place::Held, "the allocator picked a held address");
                        prop_assert!(block.hold(offset));
                        model.places[offset as usize] = Place::Held;
                    }
                }
                Step::Hold(offset) => {
                    let may = model.places.get(offset as usize).is_some_and(|place| *place != Place::Held);
                    prop_assert_eq!(block.hold(offset), may);
                    if may { model.places[offset as usize] = Place::Held; }
                }
                Step::Free(offset) => {
                    block.free(offset, now);
                    if let Some(place) = model.places.get_mut(offset as usize).filter(|place| **place == Place::Held) {
                        *place = Place::Cooling(now);
                    }
                }
                Step::Cool(offset, since) => {
                    block.cool_since(offset, at(since));
                    match model.places.get_mut(offset as usize) {
                        Some(Place::Cooling(known)) => *known = (*known).max(at(since)),
                        Some(place @ Place::Unused) => *place = Place::Cooling(at(since)),
                        _ => {}
                    }
                }
                Step::Exclude(offset) => {
                    block.exclude(offset);
                    if let Some(excluded) = model.excluded.get_mut(offset as usize) { *excluded = true; }
                }
                Step::Reserve(offset) => {
                    block.set_reserved(&Reserved::parse(&[format!("10.0.0.{offset}")]).unwrap());
                    model.reserved = Some(offset);
                }
                Step::Wait(seconds) => now = now.after(Duration::from_secs(seconds)),
            }
            let held = model.places.iter().filter(|place| **place == Place::Held).count() as u32;
            prop_assert_eq!(block.held(), held);
            prop_assert_eq!(block.is_empty(), held == 0);
            prop_assert_eq!(block.usable() as usize, (0..8).filter(|i| model.may(*i)).count());
            let cooling = |place| matches!(place, Place::Cooling(since) if now.0 < since.0 + COOLDOWN);
            let free = |place| match place { Place::Unused => true, Place::Held => false, Place::Cooling(since) => now.0 >= since.0 + COOLDOWN };
            prop_assert_eq!(block.cooling(now, COOLDOWN) as usize, model.eligible(cooling).len());
            prop_assert_eq!(free_count(&block, now, COOLDOWN) as usize, model.eligible(free).len());
            prop_assert_eq!(block.cooling_addresses().count(), model.places.iter().filter(|place| matches!(place, Place::Cooling(_))).count());
        }
    }
}

#[test]
fn all_addresses_are_assigned_including_the_first_and_the_last() {
    let mut block = BlockAllocator::new(block(4), &Reserved::default(), None);
    let mut given = Vec::new();
    while let Some(offset) = block.pick_cooled(at(0), COOLDOWN) {
        assert!(block.hold(offset));
        given.push(offset);
    }
    assert_eq!(given, (0..16).collect::<Vec<_>>());
}

#[test]
fn blocks_of_1_and_of_65536_addresses_work() {
    for bits in [0, 16] {
        let mut block = BlockAllocator::new(block(bits), &Reserved::default(), Some(at(5)));
        let len = 1 << bits;
        assert_eq!(block.cooling(at(14), COOLDOWN), len);
        assert_eq!(block.pick_cooled(at(14), COOLDOWN), None);
        assert_eq!(free_count(&block, at(15), COOLDOWN), len);
        assert!(block.hold(len - 1));
        assert!(!block.hold(len));
        assert_eq!(block.held(), 1);
    }
}

#[test]
fn a_repeated_free_does_not_extend_the_cooldown() {
    let mut block = BlockAllocator::new(block(0), &Reserved::default(), None);
    assert!(block.hold(0));
    block.free(0, at(1));
    block.free(0, at(9));
    assert_eq!(block.longest_cooling(), Some((0, at(1))), "the second call of free must not extend the cool-down");
    assert!(block.hold(0));
    assert_eq!(block.pick_cooled(at(100), COOLDOWN), None);
}

#[test]
fn unused_addresses_are_picked_first_and_then_the_longest_cooled() {
    let mut block = BlockAllocator::new(block(2), &Reserved::default(), None);
    for offset in 0..3 {
        assert!(block.hold(offset));
    }
    for (offset, time) in [(1, 1), (0, 2), (2, 3)] {
        block.free(offset, at(time));
    }
    let mut order = Vec::new();
    while let Some(offset) = block.pick_cooled(at(100), COOLDOWN) {
        assert!(block.hold(offset));
        order.push(offset);
    }
    assert_eq!(order, [3, 1, 0, 2]);
}

/// How many addresses of the block `pick_cooled` could return now.
fn free_count(block: &BlockAllocator, now: BootTime, cooldown: Duration) -> u32 {
    let unused = block.unused.ones().filter(|offset| block.may_be_picked(*offset as u32)).count();
    let cooled = block
        .cooling_order
        .iter()
        .take_while(|(since, _)| now.since(*since) >= cooldown)
        .filter(|(_, offset)| block.may_be_picked(*offset))
        .count();
    (unused + cooled) as u32
}
