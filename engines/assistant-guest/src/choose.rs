//! Which free slot a request gets.

/// A free slot, as far as that matters.
#[derive(Debug, Clone, Copy)]
pub struct Free {
    pub index: usize,
    pub seen: usize,   // bytes of the prompt and answer it had last, which its cache holds
    pub shares: usize, // of those, how many the new prompt begins with
    pub used: u64,     // when it was last given a request; 0: never
}

/// A conversation that goes on gets the slot that has most of it. Any other request gets the slot that was unused for longest: all
/// prompts of a model begin alike, and taking a slot for its beginning would throw away somebody's conversation.
pub fn choose(free: &[Free]) -> Option<usize> {
    let goes_on = free.iter().filter(|s| s.shares > 0 && s.shares * 2 >= s.seen);
    let best = goes_on.max_by_key(|s| s.shares);
    best.or_else(|| free.iter().min_by_key(|s| s.used)).map(|s| s.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(index: usize, seen: usize, shares: usize, used: u64) -> Free {
        Free { index, seen, shares, used }
    }

    #[test]
    fn a_conversation_gets_its_slot() {
        assert_eq!(choose(&[free(0, 500, 40, 9), free(1, 600, 590, 3), free(2, 0, 0, 0)]), Some(1));
    }

    #[test]
    fn another_one_leaves_it_alone() {
        assert_eq!(choose(&[free(0, 500, 40, 9), free(1, 0, 0, 0)]), Some(1));
        assert_eq!(choose(&[free(0, 500, 40, 9), free(1, 400, 40, 3)]), Some(1));
    }

    #[test]
    fn none_is_free() {
        assert_eq!(choose(&[]), None);
    }
}
