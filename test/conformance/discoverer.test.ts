import { discovererSuite } from "./discoverer.ts";

discovererSuite(process.env);
