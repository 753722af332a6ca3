//! What the founding document asks for, row by row, driven through the real binary. Rows whose text
//! says so run across real routers, in network namespaces.

mod s01_members_without_a_common_lan;
mod s02_only_udp_on_configured_ports;
mod s03_address_table;
mod s04_adapter_status;
mod s05_adapter_information;
mod s06_s13_identical_tables;
mod s07_routes;
mod s08_no_other_socket;
mod s09_responsibilities;
mod s10_datagram_sizes;
mod s11_order_of_preference;
mod s12_failover;
mod s14_by_hand;
