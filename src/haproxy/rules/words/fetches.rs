//! The table of fetches.

use super::FetchWord;
use super::{known, unknown};

const CERTIFICATE: &str = "rules cannot read client certificates";
const TLS: &str = "rules cannot read this TLS property";
const BODY: &str = "rules cannot read bodies";
const BYTES: &str = "rules cannot read bytes below HTTP";
const TIMES: &str = "times are only in the access log";

pub(super) const FETCHES: &[FetchWord] = &[
    known("always_false"),
    known("always_true"),
    known("base"),
    known("be_conn"),
    known("be_name"),
    known("bool"),
    known("capture.req.hdr"),
    known("capture.req.method"),
    known("capture.req.uri"),
    known("capture.res.hdr"),
    known("connslots"),
    known("cook"),
    known("cook_cnt"),
    known("cook_val"),
    known("cookie"),
    known("date"),
    known("dst"),
    known("dst_port"),
    known("env"),
    known("fe_conn"),
    known("fe_name"),
    known("fhdr"),
    known("fhdr_cnt"),
    known("hdr"),
    known("hdr_cnt"),
    known("hdr_ip"),
    known("hdr_val"),
    known("http_auth"),
    known("http_auth_group"),
    known("http_auth_user"),
    known("int"),
    known("method"),
    known("nbsrv"),
    known("path"),
    known("pathq"),
    known("query"),
    known("queue"),
    known("rand"),
    known("req.cook"),
    known("req.cook_cnt"),
    known("req.cook_val"),
    known("req.fhdr"),
    known("req.fhdr_cnt"),
    known("req.hdr"),
    known("req.hdr_cnt"),
    known("req.hdr_ip"),
    known("req.hdr_val"),
    known("req.proto_http"),
    known("req.ver"),
    known("req_proto_http"),
    known("req_ver"),
    known("res.cook"),
    known("res.cook_val"),
    known("res.fhdr"),
    known("res.fhdr_cnt"),
    known("res.hdr"),
    known("res.hdr_cnt"),
    known("res.hdr_ip"),
    known("res.hdr_val"),
    known("scook"),
    known("scook_val"),
    known("set-cookie"),
    known("shdr"),
    known("shdr_cnt"),
    known("shdr_ip"),
    known("shdr_val"),
    known("src"),
    known("src_port"),
    known("srv_is_up"),
    known("srv_name"),
    known("ssl_fc"),
    known("ssl_fc_has_sni"),
    known("ssl_fc_sni"),
    known("status"),
    known("str"),
    known("txn.status"),
    known("unique-id"),
    known("url"),
    known("url_param"),
    known("urlp"),
    known("var"),
    known("wait_end"),
    unknown("act_conn", "the connections of the whole process are not counted for rules"),
    unknown("avg_queue", "queues are not averaged"),
    unknown("base32", "hashes of requests are not keys here"),
    unknown("base32+src", "hashes of requests are not keys here"),
    unknown("be_conn_free", "use connslots"),
    unknown("be_sess_rate", "rates of a backend are not counted for rules"),
    unknown("bc_http_major", "rules cannot read the server's version"),
    unknown("bin", "binary constants are not compared"),
    unknown("capture.req.ver", "the client's version is req.ver"),
    unknown("capture.res.ver", "rules cannot read the server's version"),
    unknown("dst_conn", "connections of a listener are not counted for rules"),
    unknown("fc_http_major", "the client's version is req.ver"),
    unknown("fc_rcvd_proxy", "the PROXY protocol is a listener's, not a rule's"),
    unknown("fe_req_rate", "rates of a frontend are not counted for rules"),
    unknown("fe_sess_rate", "rates of a frontend are not counted for rules"),
    unknown("hostname", "rules cannot read the node's name"),
    unknown("http_auth_bearer", "tokens are not supported"),
    unknown("http_auth_pass", "passwords are not available"),
    unknown("http_auth_type", "only Basic is known"),
    unknown("http_first_req", "requests of a connection are not counted for rules"),
    unknown("ipv4", "address constants are not compared"),
    unknown("ipv6", "address constants are not compared"),
    unknown("last_rule_file", "rules are not named in the log"),
    unknown("last_rule_line", "rules are not named in the log"),
    unknown("meth", "a constant method is not compared"),
    unknown("payload", BYTES),
    unknown("payload_lv", BYTES),
    unknown("pid", "rules cannot read the process"),
    unknown("proc", "there is one process"),
    unknown("rdp_cookie", BYTES),
    unknown("rdp_cookie_cnt", BYTES),
    unknown("req.body", BODY),
    unknown("req.body_len", BODY),
    unknown("req.body_param", BODY),
    unknown("req.body_size", BODY),
    unknown("req.cook_names", "names are not listed"),
    unknown("req.hdr_names", "names are not listed"),
    unknown("req.hdrs", "the set of all headers is not available"),
    unknown("req.len", BYTES),
    unknown("req.payload", BYTES),
    unknown("req.payload_lv", BYTES),
    unknown("req.rdp_cookie", BYTES),
    unknown("req.rdp_cookie_cnt", BYTES),
    unknown("req.ssl_alpn", BYTES),
    unknown("req.ssl_hello_type", BYTES),
    unknown("req.ssl_sni", BYTES),
    unknown("req.ssl_ver", BYTES),
    unknown("req_len", BYTES),
    unknown("req_ssl_hello_type", BYTES),
    unknown("req_ssl_sni", BYTES),
    unknown("req_ssl_ver", BYTES),
    unknown("rep_ssl_hello_type", BYTES),
    unknown("res.body", BODY),
    unknown("res.body_len", BODY),
    unknown("res.cache_hit", "hits are in the access log"),
    unknown("res.hdrs", "the set of all headers is not available"),
    unknown("res.len", BYTES),
    unknown("res.payload", BYTES),
    unknown("res.ver", "rules cannot read the server's version"),
    unknown("resp_ver", "rules cannot read the server's version"),
    unknown("req.timer.hdr", TIMES),
    unknown("req.timer.tq", TIMES),
    unknown("res.timer.data", TIMES),
    unknown("res.timer.hdr", TIMES),
    unknown("txn.timer.total", TIMES),
    unknown("bc.timer.connect", TIMES),
    unknown("accept_date", TIMES),
    unknown("request_date", TIMES),
    unknown("date_us", TIMES),
    unknown("server_status", "the status is read as status"),
    unknown("so_id", "listeners have no numbers"),
    unknown("so_name", "listeners have no names in rules"),
    unknown("src_is_local", "the node's own addresses are not listed"),
    unknown("dst_is_local", "the node's own addresses are not listed"),
    unknown("srv_conn", "connections of one server are not counted for rules"),
    unknown("srv_queue", "queues of one server are not counted for rules"),
    unknown("srv_id", "servers have no numbers"),
    unknown("srv_sess_rate", "rates of one server are not counted for rules"),
    unknown("ssl_bc", TLS),
    unknown("ssl_c_ca_err", CERTIFICATE),
    unknown("ssl_c_der", CERTIFICATE),
    unknown("ssl_c_err", CERTIFICATE),
    unknown("ssl_c_i_dn", CERTIFICATE),
    unknown("ssl_c_notafter", CERTIFICATE),
    unknown("ssl_c_notbefore", CERTIFICATE),
    unknown("ssl_c_s_dn", CERTIFICATE),
    unknown("ssl_c_serial", CERTIFICATE),
    unknown("ssl_c_sha1", CERTIFICATE),
    unknown("ssl_c_used", CERTIFICATE),
    unknown("ssl_c_verify", CERTIFICATE),
    unknown("ssl_c_version", CERTIFICATE),
    unknown("ssl_f_sha1", TLS),
    unknown("ssl_fc_alg_keysize", TLS),
    unknown("ssl_fc_alpn", TLS),
    unknown("ssl_fc_cipher", TLS),
    unknown("ssl_fc_has_crt", CERTIFICATE),
    unknown("ssl_fc_has_early", TLS),
    unknown("ssl_fc_is_resumed", TLS),
    unknown("ssl_fc_npn", TLS),
    unknown("ssl_fc_protocol", TLS),
    unknown("ssl_fc_session_id", TLS),
    unknown("ssl_fc_unique_id", TLS),
    unknown("ssl_fc_use_keysize", TLS),
    unknown("stopping", "a node that stops tells its clients itself"),
    unknown("table_avl", "tables are not measured by rules"),
    unknown("table_cnt", "tables are not measured by rules"),
    unknown("thread", "rules cannot read the worker"),
    unknown("uuid", "write %ID with unique-id-format"),
    unknown("url32", "hashes of requests are not keys here"),
    unknown("url32+src", "hashes of requests are not keys here"),
    unknown("url_ip", "forward proxies are not supported"),
    unknown("url_port", "forward proxies are not supported"),
    unknown("urlp_val", "write url_param(…) -m int"),
];

/// Further fetches of HAProxy, which sluice does not support.
pub(super) const OTHERS: &str = "\
    51d.all acl baseq bc_be_queue bc_dst bc_dst_port bc_err bc_err_name bc_err_str bc_glitches bc_nb_streams \
    bc_reused bc_rtt bc_rttvar bc_settings_streams_limit bc_src bc_src_port bc_srv_queue be_connect_timeout \
    be_id be_max_retries be_queue_timeout be_server_timeout be_tarpit_timeout be_tunnel_timeout bs.aborted \
    bs.debug_str bs.id bs.rst_code bytes_in bytes_out cpu_calls cpu_ns_avg cpu_ns_tot cpu_usage_grp \
    cpu_usage_proc cpu_usage_thr cur_client_timeout cur_connect_timeout cur_max_retries cur_queue_timeout \
    cur_server_timeout cur_tarpit_timeout cur_tunnel_timeout distcc_body distcc_param dump_all_vars \
    fc.timer.handshake fc.timer.total fc_dst fc_dst_is_local fc_dst_port fc_err fc_err_name fc_err_str \
    fc_fackets fc_glitches fc_lost fc_nb_streams fc_pp_authority fc_pp_tlv fc_pp_unique_id fc_reordering \
    fc_retrans fc_rtt fc_rttvar fc_sacked fc_saved_syn fc_settings_streams_limit fc_src fc_src_is_local \
    fc_src_port fc_unacked fcgi.docroot fcgi.index fe_client_timeout fe_defbe fe_id fe_tarpit_timeout fs.aborted \
    fs.debug_str fs.id fs.rst_code internal.htx.data internal.htx.free internal.htx.free_data \
    internal.htx.has_eom internal.htx.nbblks internal.htx.size internal.htx.used internal.htx_blk.data \
    internal.htx_blk.hdrname internal.htx_blk.hdrval internal.htx_blk.size internal.htx_blk.start_line \
    internal.htx_blk.type internal.strm.is_htx last_entity lat_ns_avg lat_ns_tot nbproc prio_class prio_offset \
    quic_enabled req.bytes_in req.bytes_out req.hdrs_bin req.ssl_cipherlist req.ssl_ec_ext \
    req.ssl_keyshare_groups req.ssl_sigalgs req.ssl_st_ext req.ssl_supported_groups req.timer.idle \
    req.timer.queue req_rdp_cookie req_rdp_cookie_cnt res.body_size res.bytes_in res.bytes_out res.cache_name \
    res.comp res.comp_algo res.cook_cnt res.cook_names res.hdr_names res.hdrs_bin res.payload_lv \
    res.ssl_hello_type scook_cnt srv_conn_free srv_iweight srv_uweight srv_weight ssl_bc_alg_keysize ssl_bc_alpn \
    ssl_bc_cipher ssl_bc_client_early_traffic_secret ssl_bc_client_handshake_traffic_secret ssl_bc_client_random \
    ssl_bc_client_traffic_secret_0 ssl_bc_curve ssl_bc_early_exporter_secret ssl_bc_err ssl_bc_err_str \
    ssl_bc_exporter_secret ssl_bc_is_resumed ssl_bc_npn ssl_bc_protocol ssl_bc_server_handshake_traffic_secret \
    ssl_bc_server_random ssl_bc_server_traffic_secret_0 ssl_bc_session_id ssl_bc_session_key ssl_bc_sni \
    ssl_bc_unique_id ssl_bc_use_keysize ssl_c_ca_err_depth ssl_c_chain_der ssl_c_key_alg ssl_c_policies \
    ssl_c_r_dn ssl_c_san ssl_c_sig_alg ssl_f_der ssl_f_i_dn ssl_f_key_alg ssl_f_notafter ssl_f_notbefore \
    ssl_f_s_dn ssl_f_serial ssl_f_sig_alg ssl_f_version ssl_fc_cipherlist_bin ssl_fc_cipherlist_hex \
    ssl_fc_cipherlist_str ssl_fc_cipherlist_xxh ssl_fc_client_early_traffic_secret \
    ssl_fc_client_handshake_traffic_secret ssl_fc_client_random ssl_fc_client_traffic_secret_0 ssl_fc_crtname \
    ssl_fc_curve ssl_fc_early_exporter_secret ssl_fc_early_rcvd ssl_fc_ecformats_bin ssl_fc_eclist_bin \
    ssl_fc_err ssl_fc_err_str ssl_fc_exporter_secret ssl_fc_extlist_bin ssl_fc_protocol_hello_id \
    ssl_fc_server_handshake_traffic_secret ssl_fc_server_random ssl_fc_server_traffic_secret_0 \
    ssl_fc_session_key ssl_fc_sigalgs_bin ssl_fc_supported_versions_bin ssl_s_chain_der ssl_s_der ssl_s_i_dn \
    ssl_s_key_alg ssl_s_notafter ssl_s_notbefore ssl_s_s_dn ssl_s_serial ssl_s_sha1 ssl_s_sig_alg ssl_s_version \
    term_events tgroup txn.conn_retries txn.id32 txn.redispatched txn.sess_term_state txn.timer.user uptime \
    waiting_entity";
