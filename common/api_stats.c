/* SPDX-License-Identifier: MIT
 *
 * What /v1 says about what happens, and its figures; the structs are in api.h.
 */
#include "common/api.h"

static const struct jfield event_owner_table[] = {
    JF(struct api_event_owner, uid, JT_U32, .flags = JF_REQUIRED),
    JF_END,
};

const struct jfield api_event_table[] = {
    JF(struct api_event, seq, JT_U64, .flags = JF_REQUIRED),
    JF(struct api_event, time, JT_TIME),
    JF(struct api_event, kind, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_event, owner, JT_OBJ, .flags = JF_OPT, .table = event_owner_table),
    JF(struct api_event, sandbox, JT_STR),
    JF(struct api_event, name, JT_STR),
    JF(struct api_event, exec, JT_STR),
    JF(struct api_event, detail, JT_STR),
    JF(struct api_event, count, JT_U64, .def = 1),
    JF_END,
};

static const struct jfield stats_cpu_table[] = {
    JF(struct api_stats_cpu, cpus, JT_U32),
    JF(struct api_stats_cpu, usage_us, JT_U64),
    JF_END,
};

static const struct jfield stats_memory_table[] = {
    JF(struct api_stats_memory, limit, JT_U64),
    JF(struct api_stats_memory, used, JT_U64),
    JF(struct api_stats_memory, rss, JT_U64),
    JF(struct api_stats_memory, pss, JT_U64),
    JF_END,
};

static const struct jfield stats_disk_table[] = {
    JF(struct api_stats_disk, size, JT_U64),
    JF(struct api_stats_disk, allocated, JT_U64),
    JF(struct api_stats_disk, read_bytes, JT_U64),
    JF(struct api_stats_disk, written_bytes, JT_U64),
    JF_END,
};

static const struct jfield stats_network_table[] = {
    JF(struct api_stats_network, rx_bytes, JT_U64),
    JF(struct api_stats_network, rx_packets, JT_U64),
    JF(struct api_stats_network, tx_bytes, JT_U64),
    JF(struct api_stats_network, tx_packets, JT_U64),
    JF(struct api_stats_network, denied, JT_U64),
    JF_END,
};

const struct jfield api_stats_table[] = {
    JF(struct api_stats, id, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_stats, name, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_stats, state, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_stats, owner, JT_OBJ, .table = api_owner_table),
    JF(struct api_stats, time, JT_TIME),
    JF(struct api_stats, started_at, JT_TIME),
    JF(struct api_stats, uptime_ms, JT_U64),
    JF(struct api_stats, cpu, JT_OBJ, .table = stats_cpu_table),
    JF(struct api_stats, memory, JT_OBJ, .table = stats_memory_table),
    JF(struct api_stats, disk, JT_OBJ, .table = stats_disk_table),
    JF(struct api_stats, network, JT_OBJ, .flags = JF_OPT, .table = stats_network_table),
    JF(struct api_stats, execs_running, JT_U32),
    JF(struct api_stats, processes, JT_U32),
    JF(struct api_stats, threads, JT_U32),
    JF_END,
};

const struct jfield api_stats_list_table[] = {
    JF(struct api_stats_list, stats, JT_LIST, .flags = JF_REQUIRED, .table = api_stats_table,
       .item_size = sizeof(struct api_stats)),
    JF_END,
};
