-- How long ended tasks of a kind are kept, and how many, as people have set it while a broker ran. NULL: as the settings say.
ALTER TABLE laneway_kinds ADD COLUMN done_age_ms INTEGER;
ALTER TABLE laneway_kinds ADD COLUMN done_count_max INTEGER;
ALTER TABLE laneway_kinds ADD COLUMN cancelled_age_ms INTEGER;
ALTER TABLE laneway_kinds ADD COLUMN cancelled_count_max INTEGER;
ALTER TABLE laneway_kinds ADD COLUMN dead_age_ms INTEGER;
ALTER TABLE laneway_kinds ADD COLUMN dead_count_max INTEGER;
