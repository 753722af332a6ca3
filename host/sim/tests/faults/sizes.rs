//! Path MTU discovery beside a sizing policy that answers by what was discovered.

use overlan_sim::World;

use crate::common::{SECOND, core, many};

/// To within the search's precision; and what a path carries later is found when it is time to look again.
#[test]
fn the_size_of_a_path_is_found_and_found_again() {
    for hop in [8_872, 7_972, 3_972, 1_442, 1_200] {
        let mut world = many(1, 2);
        world.network.mtu = hop;
        (0..2).for_each(|member| world.change_adapters(member, |adapters| adapters[0].mtu = 9_000));
        let sizes = |world: &World| {
            let path = core(world, 0).paths(world.now).remove(0);
            (path.datagram as usize, path.datagram_allowed as usize)
        };
        world.run_for(40 * SECOND);
        let (found, allowed) = sizes(&world);
        assert!(found <= hop && found + 16 > hop, "{hop}: {found}");
        assert!(allowed >= found, "{hop}: {allowed}");
        world.network.mtu = 0;
        world.run_for(640 * SECOND);
        assert_eq!(sizes(&world), (8_972, 8_972), "{hop}");
    }
}
