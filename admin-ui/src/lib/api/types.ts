/** The admin API's own types, which the server checks requests by. */
export type * from "../../../../services/admin/api/index.ts";
