//! The table of converters.

use super::ConverterWord;
use super::{known, unknown};

const ONLY_TEXTS: &str = "only texts, numbers and addresses are converted";
const NO_HASH: &str = "hashes are not available in rules";
const NO_DATE: &str = "dates are not available in rules";

pub(super) const CONVERTERS: &[ConverterWord] = &[
    known("add"),
    known("and"),
    known("b64dec"),
    known("base64"),
    known("bool"),
    known("bytes"),
    known("concat"),
    known("cpl"),
    known("div"),
    known("even"),
    known("field"),
    known("hex"),
    known("host_only"),
    known("iif"),
    known("ipmask"),
    known("length"),
    known("lower"),
    known("ltrim"),
    known("map"),
    known("map_beg"),
    known("map_dir"),
    known("map_dom"),
    known("map_end"),
    known("map_ip"),
    known("map_reg"),
    known("map_str"),
    known("map_sub"),
    known("mod"),
    known("mul"),
    known("nbsrv"),
    known("neg"),
    known("not"),
    known("odd"),
    known("or"),
    known("port_only"),
    known("regsub"),
    known("rtrim"),
    known("sub"),
    known("ub64dec"),
    known("ub64enc"),
    known("upper"),
    known("url_dec"),
    known("url_enc"),
    known("word"),
    known("xor"),
    unknown("add_item", ONLY_TEXTS),
    unknown("crc32", NO_HASH),
    unknown("crc32c", NO_HASH),
    unknown("debug", "rules cannot write to the log"),
    unknown("digest", NO_HASH),
    unknown("djb2", NO_HASH),
    unknown("hex2i", ONLY_TEXTS),
    unknown("hmac", NO_HASH),
    unknown("http_date", NO_DATE),
    unknown("in_table", "tables are only read by sc_… and src_…"),
    unknown("json", ONLY_TEXTS),
    unknown("json_query", ONLY_TEXTS),
    unknown("jwt_header_query", "tokens are not supported"),
    unknown("jwt_payload_query", "tokens are not supported"),
    unknown("jwt_verify", "tokens are not supported"),
    unknown("language", ONLY_TEXTS),
    unknown("ltime", NO_DATE),
    unknown("map_int", "only maps of texts are supported"),
    unknown("map_regm", "groups in the values of maps are not replaced"),
    unknown("map_str_int", "only maps of texts are supported"),
    unknown("map_ip_str", "only maps of texts are supported"),
    unknown("sdbm", NO_HASH),
    unknown("secure_memcmp", "use str and http_auth"),
    unknown("set-var", "use the action set-var"),
    unknown("sha1", NO_HASH),
    unknown("sha2", NO_HASH),
    unknown("srv_is_up", "use the fetch srv_is_up"),
    unknown("strcmp", "variables are compared by var(…) -m str"),
    unknown("table_http_req_rate", "tables are only read by sc_… and src_…"),
    unknown("table_conn_cur", "tables are only read by sc_… and src_…"),
    unknown("table_conn_rate", "tables are only read by sc_… and src_…"),
    unknown("table_gpc0", "tables are only read by sc_… and src_…"),
    unknown("unset-var", "use the action unset-var"),
    unknown("utime", NO_DATE),
    unknown("wt6", NO_HASH),
    unknown("xxh3", NO_HASH),
    unknown("xxh32", NO_HASH),
    unknown("xxh64", NO_HASH),
];

/// Further converters of HAProxy, which sluice does not support.
pub(super) const OTHERS: &str = "\
    51d.single aes_cbc_dec aes_cbc_enc aes_gcm_dec aes_gcm_enc base2 be2dec be2hex capture-req capture-res \
    cut_crlf da-csv-conv eth.data eth.dst eth.hdr eth.proto eth.src eth.vlan fe_exists fix_is_valid \
    fix_tag_value has_ctl htonl ip.data ip.df ip.dst ip.fp ip.hdr ip.proto ip.src ip.tos ip.ttl ip.ver \
    jwt_decrypt_cert jwt_decrypt_jwk jwt_decrypt_secret jwt_verify_cert le2dec map_beg_int map_beg_ip \
    map_dir_int map_dir_ip map_dom_int map_dom_ip map_end_int map_end_ip map_int_int map_int_ip map_ip_int \
    map_ip_ip map_match map_match_output map_reg_int map_reg_ip map_str_ip map_sub_int map_sub_ip \
    mqtt_field_value mqtt_is_valid ms_ltime ms_utime param protobuf reverse reverse_dom rfc7239_field \
    rfc7239_is_valid rfc7239_n2nn rfc7239_n2np rfc7239_nn rfc7239_np srv_queue table_bytes_in_rate \
    table_bytes_out_rate table_clr_gpc table_clr_gpc0 table_clr_gpc1 table_conn_cnt table_expire \
    table_glitch_cnt table_glitch_rate table_gpc table_gpc0_rate table_gpc1 table_gpc1_rate table_gpc_rate \
    table_gpt table_gpt0 table_http_err_cnt table_http_err_rate table_http_fail_cnt table_http_fail_rate \
    table_http_req_cnt table_idle table_inc_gpc table_inc_gpc0 table_inc_gpc1 table_kbytes_in table_kbytes_out \
    table_server_id table_sess_cnt table_sess_rate table_trackers tcp.dst tcp.flags tcp.options.mss \
    tcp.options.sack tcp.options.tsopt tcp.options.tsval tcp.options.wscale tcp.options.wsopt tcp.options_list \
    tcp.seq tcp.src tcp.win ungrpc us_ltime us_utime when x509_v_err_str";
